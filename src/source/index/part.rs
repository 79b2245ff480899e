//! One part of a data set of many, for job arrays.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::launcher::{self, COUNT_MAX, Launched, Refused};

/// Part `number` (from 0) of `of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    number: u64,
    of: u64,
}

impl Part {
    /// All of it.
    pub const WHOLE: Self = Self { number: 0, of: 1 };

    /// Part `number` of `of`.
    ///
    /// # Errors
    /// `InvalidParameter` unless `number` is below `of`, which is at most 100,000.
    pub fn new(number: u64, of: u64) -> Result<Self> {
        if number < of && of <= COUNT_MAX {
            return Ok(Self { number, of });
        }
        let allowed = "I/N with I from 0 to N - 1 and N up to 100000";
        Err(Error::invalid_parameter("part", format!("{number}/{of}"), allowed))
    }

    /// Its number, from 0.
    pub fn number(self) -> u64 {
        self.number
    }

    /// How many parts there are.
    pub fn of(self) -> u64 {
        self.of
    }

    /// Its share of `len` things: contiguous, and in sum all of them.
    pub fn range(self, len: u64) -> Range<u64> {
        let start = |number| (u128::from(len) * u128::from(number) / u128::from(self.of)) as u64;
        start(self.number)..start(self.number + 1)
    }

    /// The part that falls to this process by the variables that job schedulers and launchers set, and which
    /// of them said so; `None` where there are none. The innermost launcher counts: torchrun, Open MPI,
    /// MPICH and other PMI launchers, a Slurm step, a Slurm job array, a Kubernetes indexed job.
    ///
    /// # Errors
    /// `InvalidParameter` where variables contradict themselves or do not say how many parts there are.
    pub fn detect(variable: impl Fn(&str) -> Option<String>) -> Result<Option<(Self, &'static str)>> {
        let launched = launcher::detect(&launcher::PARTS, &variable).map_err(|Refused(values)| {
            Error::invalid_parameter("part by the environment", values, "these name no part of a whole")
                .with_remedy("give --part I/N, or --part 0/1 for all of it")
        })?;
        Ok(launched.map(|Launched { number, of, by }| (Self { number, of }, by)))
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

impl FromStr for Part {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers = text.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        let (number, of) = numbers.ok_or_else(|| Error::invalid_parameter("part", text, "I/N, such as 0/8"))?;
        Self::new(number, of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn detect(pairs: &[(&str, &str)]) -> Result<Option<(String, &'static str)>> {
        let variable = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Part::detect(variable).map(|found| found.map(|(part, name)| (part.to_string(), name)))
    }

    #[test]
    fn parts_cover_everything_once_and_in_order() {
        for (len, of) in [(0, 3), (1, 3), (10, 3), (7, 7), (5, 100), (u64::MAX, 99_999)] {
            let ranges: Vec<_> = (0..of).map(|number| Part::new(number, of).unwrap().range(len)).collect();
            assert_eq!((ranges[0].start, ranges[of as usize - 1].end), (0, len));
            assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
        }
    }

    #[test]
    fn what_is_no_part_is_refused() {
        assert_eq!("3/4".parse::<Part>().unwrap().to_string(), "3/4");
        for bad in ["4/4", "0/0", "1", "a/b", "-1/3", "1/2/3", "0/100001"] {
            assert_eq!(bad.parse::<Part>().unwrap_err().kind(), ErrorKind::InvalidParameter, "{bad}");
        }
    }

    #[test]
    fn launchers_say_which_part() {
        assert_eq!(detect(&[]).unwrap(), None);
        let array = [
            ("SLURM_ARRAY_TASK_ID", "14"),
            ("SLURM_ARRAY_TASK_COUNT", "5"),
            ("SLURM_ARRAY_TASK_MIN", "10"),
            ("SLURM_ARRAY_TASK_STEP", "2"),
        ];
        assert_eq!(detect(&array).unwrap(), Some(("2/5".into(), "SLURM_ARRAY_TASK_ID")));
        assert_eq!(detect(&[("RANK", "1"), ("WORLD_SIZE", "2")]).unwrap(), Some(("1/2".into(), "RANK")));
        let kubernetes = [("JOB_COMPLETION_INDEX", "3"), ("JOB_COMPLETIONS", "4")];
        assert_eq!(detect(&kubernetes).unwrap(), Some(("3/4".into(), "JOB_COMPLETION_INDEX")));
        // The script of a batch job of many tasks runs once.
        assert_eq!(detect(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "8")]).unwrap(), None);
        let step = [("SLURM_PROCID", "5"), ("SLURM_STEP_NUM_TASKS", "8"), ("SLURM_NTASKS", "8")];
        assert_eq!(detect(&step).unwrap(), Some(("5/8".into(), "SLURM_PROCID")));
    }

    #[test]
    fn variables_that_name_no_part_are_refused_by_name() {
        for pairs in [
            &[("JOB_COMPLETION_INDEX", "3")][..],
            &[("RANK", "2"), ("WORLD_SIZE", "2")],
            &[("RANK", "x"), ("WORLD_SIZE", "2")],
            // An array of tasks 1, 3 and 7.
            &[("SLURM_ARRAY_TASK_ID", "7"), ("SLURM_ARRAY_TASK_COUNT", "3"), ("SLURM_ARRAY_TASK_MIN", "1")],
        ] {
            let error = detect(pairs).unwrap_err();
            assert!(error.to_string().contains(pairs[0].0) && error.remedy().is_some(), "{error}");
        }
    }
}
