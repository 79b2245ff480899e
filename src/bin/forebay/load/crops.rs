//! Views of a sample as the command line describes them.

use std::fmt;
use std::str::FromStr;

use forebay::{Error, Result};

/// Groups of crops: `2x224,6x96`, or with bounds of their area as parts of the image's, `2x224@0.4-1,6x96@0.05-0.4`.
#[derive(Clone, Debug, PartialEq)]
pub struct Crops(pub Vec<Crop>);

/// Crops of one size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crop {
    /// How many of every sample.
    pub count: usize,
    /// Rows and columns.
    pub size: u32,
    /// Bounds of the area; none for those of ImageNet training.
    pub scale: Option<[f64; 2]>,
}

impl FromStr for Crops {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let crops = text.split(',').map(|crop| parse(crop.trim())).collect::<Option<_>>();
        crops.map(Self).ok_or_else(|| {
            let allowed =
                "groups of COUNTxSIZE or COUNTxSIZE@LOW-HIGH with commas between, such as 2x224,6x96@0.05-0.4";
            Error::invalid_parameter("--crops", text, allowed)
        })
    }
}

fn parse(text: &str) -> Option<Crop> {
    let (crop, scale) = match text.split_once('@') {
        Some((crop, bounds)) => {
            let (low, high) = bounds.split_once('-')?;
            (crop, Some([low.parse().ok()?, high.parse().ok()?]))
        }
        None => (text, None),
    };
    let (count, size) = crop.split_once('x')?;
    Some(Crop { count: count.parse().ok()?, size: size.parse().ok()?, scale })
}

impl fmt::Display for Crops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, Crop { count, size, scale }) in self.0.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            write!(f, "{comma}{count}x{size}")?;
            if let Some([low, high]) = scale {
                write!(f, "@{low}-{high}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crops_are_read_as_they_are_written() {
        let crops: Crops = "2x224@0.4-1,6x96".parse().unwrap();
        let [global, local] = crops.0[..] else { panic!("{crops:?}") };
        assert_eq!(global, Crop { count: 2, size: 224, scale: Some([0.4, 1.0]) });
        assert_eq!(local, Crop { count: 6, size: 96, scale: None });
        assert_eq!(crops.to_string(), "2x224@0.4-1,6x96");
        for nonsense in ["", "224", "2x", "x224", "2x224,", "2x224@", "2x224@0.4", "-1x224", "2x224@a-1"] {
            assert!(nonsense.parse::<Crops>().unwrap_err().to_string().contains("--crops"), "{nonsense:?}");
        }
    }
}
