//! The share of one process among several.

use std::fmt;

use crate::error::{Error, Result};
use crate::launcher::{self, COUNT_MAX, Launched, Refused};

/// A process of several that train together: `rank` of `world_size`.
///
/// Each gets its share of every global batch, next to that of the rank before it; all of them together get the epoch,
/// in the order that a single process would get it in. See [`EpochSteps`](super::EpochSteps).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shard {
    rank: u64,
    world_size: u64,
}

impl Shard {
    /// A single process.
    pub const WHOLE: Self = Self { rank: 0, world_size: 1 };

    /// The process `rank`, from 0, of `world_size`.
    ///
    /// # Errors
    /// `InvalidParameter` unless `rank` is below `world_size`, which is at most 100,000.
    pub fn new(rank: u64, world_size: u64) -> Result<Self> {
        if !(1..=COUNT_MAX).contains(&world_size) {
            return Err(Error::invalid_parameter("world_size", world_size, "1 to 100000 processes train together"));
        }
        if rank >= world_size {
            let allowed = format!("ranks are 0 to {}, as the world size is {world_size}", world_size - 1);
            return Err(Error::invalid_parameter("rank", rank, &allowed));
        }
        Ok(Self { rank, world_size })
    }

    /// The rank of this process by the variables that launchers set; [`WHOLE`](Self::WHOLE) where none are, as when it
    /// was started by hand.
    ///
    /// | launcher | variables |
    /// |---|---|
    /// | torchrun, and what follows it | `RANK`, `WORLD_SIZE` |
    /// | Open MPI's mpirun | `OMPI_COMM_WORLD_RANK`, `OMPI_COMM_WORLD_SIZE` |
    /// | MPICH, Intel MPI and others that speak PMI | `PMI_RANK`, `PMI_SIZE` |
    /// | Slurm's srun | `SLURM_PROCID`, `SLURM_STEP_NUM_TASKS` or else `SLURM_NTASKS` |
    /// | Kubernetes, an indexed job | `JOB_COMPLETION_INDEX`, and `JOB_COMPLETIONS`, which the job has to set itself |
    ///
    /// The first of them that is there counts: one that runs inside another, as torchrun in a Slurm step, stands before
    /// it. A Slurm job array makes no ranks: each of its jobs is a run of its own.
    ///
    /// # Errors
    /// `InvalidParameter` where variables contradict each other or do not say how many processes there are; and in the
    /// script of a Slurm job of several tasks that is not started by srun, which would take one rank's share and leave
    /// out the others'.
    pub fn from_env() -> Result<Self> {
        let Some((shard, variable)) = Self::detect(|name| std::env::var(name).ok())? else { return Ok(Self::WHOLE) };
        log::info!("rank {} of {} by {variable}", shard.rank, shard.world_size);
        Ok(shard)
    }

    /// As [`from_env`](Self::from_env) by variables from anywhere, with the name of the one that said so; `None` where
    /// there are none.
    ///
    /// # Errors
    /// Those of [`from_env`](Self::from_env).
    pub fn detect(variable: impl Fn(&str) -> Option<String>) -> Result<Option<(Self, &'static str)>> {
        let launched = launcher::detect(&launcher::RANKS, &variable).map_err(|Refused(values)| {
            Error::invalid_parameter("the rank by the environment", values, "these name no process of several")
                .with_remedy("start every process by srun, torchrun or mpirun, or give rank and world size")
        })?;
        Ok(launched.map(|Launched { number, of, by }| (Self { rank: number, world_size: of }, by)))
    }

    /// The number of this process, from 0.
    pub fn rank(self) -> u64 {
        self.rank
    }

    /// How many processes train together.
    pub fn world_size(self) -> u64 {
        self.world_size
    }
}

impl Default for Shard {
    fn default() -> Self {
        Self::WHOLE
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {}", self.rank, self.world_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn detect(pairs: &[(&str, &str)]) -> Result<Option<(u64, u64, &'static str)>> {
        let variable = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Shard::detect(variable).map(|found| found.map(|(shard, name)| (shard.rank, shard.world_size, name)))
    }

    #[test]
    fn every_launcher_says_which_rank() {
        assert_eq!(detect(&[]).unwrap(), None);
        for (rank, world_size) in [
            ("RANK", "WORLD_SIZE"),
            ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
            ("PMI_RANK", "PMI_SIZE"),
            ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
            ("SLURM_PROCID", "SLURM_NTASKS"),
            ("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS"),
        ] {
            assert_eq!(detect(&[(rank, "3"), (world_size, "8")]).unwrap(), Some((3, 8, rank)));
            assert_eq!(detect(&[(rank, "0"), (world_size, "1")]).unwrap(), Some((0, 1, rank)));
            for (number, count) in [("8", "8"), ("0", "0"), ("-1", "8"), ("x", "8"), ("1", ""), ("1", "100001")] {
                let error = detect(&[(rank, number), (world_size, count)]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidParameter);
                let text = error.to_string();
                assert!(text.contains(&format!("{rank}={number}")) && text.contains(world_size), "{text}");
                assert!(error.remedy().is_some());
            }
            // The others would hold theirs for one of several.
            assert!(detect(&[(rank, "3")]).is_err(), "{rank} alone");
        }
    }

    #[test]
    fn the_innermost_launcher_counts() {
        let step = [("SLURM_PROCID", "1"), ("SLURM_STEP_NUM_TASKS", "2"), ("SLURM_NTASKS", "4")];
        assert_eq!(detect(&step).unwrap(), Some((1, 2, "SLURM_PROCID")));
        let torchrun = [&step[..], &[("RANK", "5"), ("WORLD_SIZE", "16")]].concat();
        assert_eq!(detect(&torchrun).unwrap(), Some((5, 16, "RANK")));
    }

    #[test]
    fn an_array_is_no_world() {
        let array = [("SLURM_ARRAY_TASK_ID", "3"), ("SLURM_ARRAY_TASK_COUNT", "5"), ("SLURM_ARRAY_TASK_MIN", "1")];
        assert_eq!(detect(&array).unwrap(), None);
    }

    #[test]
    fn the_script_of_a_job_is_none_of_its_tasks() {
        let script = [("SLURM_JOB_ID", "17"), ("SLURM_PROCID", "0")];
        assert_eq!(detect(&script).unwrap(), None);
        assert_eq!(detect(&[&script[..], &[("SLURM_NTASKS", "1")]].concat()).unwrap(), Some((0, 1, "SLURM_PROCID")));
        let of_many = [&script[..], &[("SLURM_NTASKS", "8")]].concat();
        let error = detect(&of_many).unwrap_err();
        assert!(error.to_string().contains("SLURM_NTASKS=8") && error.to_string().contains("srun"), "{error}");
        let step = [&of_many[..], &[("SLURM_STEP_ID", "0")]].concat();
        assert_eq!(detect(&step).unwrap(), Some((0, 8, "SLURM_PROCID")));
        // Nothing is wrong where torchrun was started by the script.
        let torchrun = [&of_many[..], &[("RANK", "1"), ("WORLD_SIZE", "2")]].concat();
        assert_eq!(detect(&torchrun).unwrap(), Some((1, 2, "RANK")));
    }

    #[test]
    fn what_is_no_rank_is_refused_by_name() {
        assert_eq!(Shard::new(7, 8).unwrap().to_string(), "rank 7 of 8");
        for (rank, world_size, name) in [(8, 8, "rank is 8"), (0, 0, "world_size is 0"), (0, 100_001, "100001")] {
            let error = Shard::new(rank, world_size).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidParameter);
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
