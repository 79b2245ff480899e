//! What becomes of samples that cannot be delivered, and how many of them there may be.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// What becomes of a sample that cannot be delivered: it is missing, storage does not give it, or its bytes are no sound
/// image. A defect of the run, such as a lost device, ends it in any case. Of several views of a sample, it is all or none.
///
/// What is delivered is a function of data, seed, epoch and position under all of them: the same on any engine, device,
/// number of threads or ranks, from any place that a run is resumed at, as long as storage answers the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// Its error is the last that the iterator gives. The default.
    #[default]
    Fail,
    /// The next sample of the epoch's order that can be delivered stands in for it, from the epoch's beginning on where
    /// the end is reached, in a view of its own: augmented otherwise than at its own place. Batches keep their size.
    ///
    /// Wherever a sample stands in for others in an epoch, it is the same view of it. Where storage fails for 16 samples at
    /// one place of a batch, the run ends.
    Replace,
    /// The batch goes without: it is shorter, its samples follow each other without a gap. Ranks keep equal steps, so a batch
    /// of which nothing is left is delivered empty.
    Skip,
}

impl OnError {
    /// The name used on the command line and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Replace => "replace",
            Self::Skip => "skip",
        }
    }
}

impl fmt::Display for OnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for OnError {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = [Self::Fail, Self::Replace, Self::Skip].into_iter().find(|policy| policy.name() == text);
        known.ok_or_else(|| Error::invalid_parameter("on_error", text, "fail, replace or skip"))
    }
}

/// How many samples of an epoch may be bad, of those that one loader was asked for, before the run ends with
/// [`BudgetExceeded`](crate::ErrorKind::BudgetExceeded). Default 1 %.
///
/// They are counted where batches are taken, in their order, from the epoch's first batch or the one that the run was resumed
/// at; so a run ends at the same batch however many threads there are. The batch that goes beyond is not delivered. Under
/// [`Replace`](OnError::Replace) a run of so many bad samples behind one, of all ranks, ends it too.
///
/// ```
/// use forebay::ErrorBudget;
///
/// assert_eq!("12".parse::<ErrorBudget>()?, ErrorBudget::count(12));
/// assert_eq!("0.5%".parse::<ErrorBudget>()?, ErrorBudget::rate(0.005)?);
/// # Ok::<(), forebay::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ErrorBudget(Allowed);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Allowed {
    Count(u64),
    /// From 0 to 1.
    Rate(f64),
}

impl Default for ErrorBudget {
    fn default() -> Self {
        Self(Allowed::Rate(0.01))
    }
}

impl ErrorBudget {
    /// A rate is of at least this many samples: what an epoch begins with says little.
    pub const RATE_SAMPLES_MIN: u64 = 1000;

    /// So many samples an epoch.
    pub const fn count(samples: u64) -> Self {
        Self(Allowed::Count(samples))
    }

    /// A share, from 0 to 1, of the samples of the epoch that were taken so far, or of
    /// [`RATE_SAMPLES_MIN`](Self::RATE_SAMPLES_MIN) while those are fewer. At 1 every sample may be bad.
    ///
    /// # Errors
    /// `InvalidParameter` for anything else.
    pub fn rate(rate: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&rate) {
            return Err(Error::invalid_parameter("error_budget", rate, "a rate is a number from 0 to 1"));
        }
        Ok(Self(Allowed::Rate(rate)))
    }

    /// How many may be bad of so many.
    pub(super) fn allows(&self, taken: u64) -> u64 {
        match self.0 {
            Allowed::Count(count) => count,
            // Sums like 0.07 x 100 may come out a little short.
            Allowed::Rate(rate) => (rate * taken.max(Self::RATE_SAMPLES_MIN) as f64 * (1.0 + 1e-12)) as u64,
        }
    }
}

/// As [`FromStr`] reads it.
impl fmt::Display for ErrorBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Allowed::Count(count) => write!(f, "{count}"),
            // 0.07 x 100 is not 7.
            Allowed::Rate(rate) => write!(f, "{}%", (rate * 1e14).round() / 1e12),
        }
    }
}

impl FromStr for ErrorBudget {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let budget = match text.strip_suffix('%') {
            Some(percent) => percent.trim().parse().ok().and_then(|percent: f64| Self::rate(percent / 100.0).ok()),
            None => text.parse().ok().map(Self::count),
        };
        let allowed = "a number of samples, or 0% to 100% of them";
        budget.ok_or_else(|| Error::invalid_parameter("error_budget", text, allowed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_and_budgets_come_back_from_their_text() {
        for policy in [OnError::Fail, OnError::Replace, OnError::Skip] {
            assert_eq!(policy.to_string().parse::<OnError>().unwrap(), policy);
        }
        assert!("Skip".parse::<OnError>().is_err());
        for text in ["0", "17", "18446744073709551615", "0%", "0.5%", "7%", "100%"] {
            assert_eq!(text.parse::<ErrorBudget>().unwrap().to_string(), text);
        }
        for bad in ["", "%", "-1", "1.5", "101%", "-1%", "NaN%", "inf%", "5 of 100"] {
            let error = bad.parse::<ErrorBudget>().expect_err(bad);
            assert!(error.to_string().contains("error_budget"), "{error}");
        }
    }

    #[test]
    fn a_rate_is_of_a_thousand_samples_at_least() {
        let budget: ErrorBudget = "7%".parse().unwrap();
        assert_eq!([0, 100, 1000, 1100, 10_000].map(|taken| budget.allows(taken)), [70, 70, 70, 77, 700]);
        assert_eq!(ErrorBudget::rate(1.0).unwrap().allows(12_345), 12_345);
        assert_eq!(ErrorBudget::rate(0.0).unwrap().allows(u64::MAX), 0);
        assert_eq!([0, u64::MAX].map(|taken| ErrorBudget::count(3).allows(taken)), [3, 3]);
        assert_eq!(ErrorBudget::default().allows(0), 10);
        assert!(ErrorBudget::rate(f64::NAN).is_err() && ErrorBudget::rate(1.01).is_err());
    }
}
