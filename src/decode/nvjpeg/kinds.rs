//! Kinds of images, as far as nvJPEG's backends tell them apart.

use crate::jpeg::{ColourModel, Component, Header};

/// How chroma is stored, of those ways that nvJPEG has a name for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sampling {
    S444,
    S422,
    S440,
    S420,
    S411,
    Grey,
}

/// What of an image decides whether a backend takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub sampling: Sampling,
    /// Whether a restart interval is defined, also one that is longer than the image.
    pub has_restarts: bool,
}

/// Some kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kinds(u16);

impl Sampling {
    const ALL: [Self; 6] = [Self::S444, Self::S422, Self::S440, Self::S420, Self::S411, Self::Grey];

    /// Of a header.
    ///
    /// # Errors
    ///
    /// Why the file is for another decoder.
    pub(super) fn of(header: &Header) -> Result<Self, &'static str> {
        let is_chroma = |component: &Component| (component.h, component.v) == (1, 1);
        let found = match (header.colour, header.components()) {
            (ColourModel::Grey, [grey]) if (grey.h, grey.v) == (1, 1) => Some(Self::Grey),
            (ColourModel::Grey, _) => None,
            (ColourModel::YCbCr, [luma, chroma @ ..]) if chroma.iter().all(is_chroma) => {
                Self::ALL.into_iter().find(|sampling| sampling.luma() == Some((luma.h, luma.v)))
            }
            (ColourModel::YCbCr, _) => None,
            // Whether nvJPEG would convert it, NVIDIA does not say.
            _ => return Err("components that are red, green and blue"),
        };
        found.ok_or("sampling factors without a name")
    }

    /// Luma's factors, chroma's being 1x1; none where there is no chroma.
    const fn luma(self) -> Option<(u8, u8)> {
        match self {
            Self::S444 => Some((1, 1)),
            Self::S422 => Some((2, 1)),
            Self::S440 => Some((1, 2)),
            Self::S420 => Some((2, 2)),
            Self::S411 => Some((4, 1)),
            Self::Grey => None,
        }
    }
}

impl Kind {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        Sampling::ALL.into_iter().flat_map(|sampling| [false, true].map(|has_restarts| Self { sampling, has_restarts }))
    }

    fn bit(self) -> u16 {
        1 << (2 * self.sampling as u16 + u16::from(self.has_restarts))
    }

    /// A JPEG of this kind up to its scan, of which there is nothing: enough to ask whether it would be decoded.
    #[rustfmt::skip]
    pub(super) fn specimen(self) -> Vec<u8> {
        const SIDE: u8 = 2; // in units of 256 pixels
        let factors = match self.sampling.luma() {
            Some((h, v)) => vec![h << 4 | v, 0x11, 0x11],
            None => vec![0x11],
        };
        let count = factors.len() as u8;
        let mut bytes = vec![0xFF, 0xD8, 0xFF, 0xDB, 0, 67, 0];
        bytes.extend([1; 64]);
        bytes.extend([0xFF, 0xC0, 0, 8 + 3 * count, 8, SIDE, 0, SIDE, 0, count]);
        bytes.extend((1..).zip(factors).flat_map(|(id, factors)| [id, factors, 0]));
        // One code of one bit each, for DC and AC: a difference of nothing, the end of the block.
        for table in [0x00, 0x10] {
            bytes.extend([0xFF, 0xC4, 0, 20, table, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
        if self.has_restarts {
            bytes.extend([0xFF, 0xDD, 0, 4, 0, 8]);
        }
        bytes.extend([0xFF, 0xDA, 0, 6 + 2 * count, count]);
        bytes.extend((1..=count).flat_map(|id| [id, 0]));
        bytes.extend([0, 63, 0, 0xFF, 0xD9]);
        bytes
    }
}

impl Kinds {
    pub(super) fn contains(self, kind: Kind) -> bool {
        self.0 & kind.bit() != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those of either.
    pub(super) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl FromIterator<Kind> for Kinds {
    fn from_iter<T: IntoIterator<Item = Kind>>(kinds: T) -> Self {
        Self(kinds.into_iter().fold(0, |bits, kind| bits | kind.bit()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jpeg::Process;

    #[test]
    fn a_specimen_is_of_its_kind() {
        for kind in Kind::all() {
            let header = Header::parse(&kind.specimen()).unwrap();
            assert_eq!(Sampling::of(&header), Ok(kind.sampling));
            assert_eq!(header.tables.restart_interval > 0, kind.has_restarts);
            assert_eq!((header.process, header.width, header.height), (Process::Baseline, 512, 512));
        }
    }

    #[test]
    fn kinds_hold_what_they_were_made_of() {
        assert_eq!(Kind::all().count(), 12);
        for kind in Kind::all() {
            let (one, others) =
                (Kinds::from_iter([kind]), Kinds::from_iter(Kind::all().filter(|&other| other != kind)));
            assert!(Kind::all().all(|other| one.contains(other) == (other == kind)));
            assert!(!others.contains(kind) && others.or(one) == Kinds::from_iter(Kind::all()));
            assert!(!one.is_empty() && Kinds::default().is_empty());
        }
    }
}
