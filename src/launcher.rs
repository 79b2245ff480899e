//! Which of several processes this is, by the variables of what launched it.

/// The most processes or parts that are believed in.
pub(crate) const COUNT_MAX: u64 = 100_000;

/// What a launcher said of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Launched {
    /// From 0.
    pub(crate) number: u64,
    /// How many there are.
    pub(crate) of: u64,
    /// The variable that said so.
    pub(crate) by: &'static str,
}

/// Variables that contradict themselves or are incomplete, with their values.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) String);

/// The variables of a launcher.
pub(crate) struct Launcher {
    number: &'static str,
    /// How many there are: the first of these that is set.
    of: &'static [&'static str],
    /// The number that counts as 0, if not 0.
    first: Option<&'static str>,
    /// What lies between two numbers, if not 1.
    step: Option<&'static str>,
    /// Whether 0 without a count is a process among several too, and not one that no launcher has started.
    is_one_of_many: bool,
}

const TORCHRUN: Launcher = ranks("RANK", &["WORLD_SIZE"]);
const OPEN_MPI: Launcher = ranks("OMPI_COMM_WORLD_RANK", &["OMPI_COMM_WORLD_SIZE"]);
const PMI: Launcher = ranks("PMI_RANK", &["PMI_SIZE"]);
/// Kubernetes gives the index alone; the count is the job's `completions`, to be set beside it.
const KUBERNETES: Launcher = Launcher { is_one_of_many: true, ..ranks("JOB_COMPLETION_INDEX", &["JOB_COMPLETIONS"]) };

/// Those of processes that train together, the innermost first. A Slurm job array is none: its jobs are runs of their
/// own.
pub(crate) const RANKS: [Launcher; 5] =
    [TORCHRUN, OPEN_MPI, PMI, ranks("SLURM_PROCID", &["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"]), KUBERNETES];

/// Those of processes that divide work, the innermost first.
pub(crate) const PARTS: [Launcher; 6] = [
    TORCHRUN,
    OPEN_MPI,
    PMI,
    // SLURM_NTASKS is the whole job's and there in batch scripts too, which run once.
    ranks("SLURM_PROCID", &["SLURM_STEP_NUM_TASKS"]),
    Launcher {
        first: Some("SLURM_ARRAY_TASK_MIN"),
        step: Some("SLURM_ARRAY_TASK_STEP"),
        is_one_of_many: true,
        ..ranks("SLURM_ARRAY_TASK_ID", &["SLURM_ARRAY_TASK_COUNT"])
    },
    KUBERNETES,
];

const fn ranks(number: &'static str, of: &'static [&'static str]) -> Launcher {
    Launcher { number, of, first: None, step: None, is_one_of_many: false }
}

/// What the first of the launchers says whose variables are set; `None` where there is none.
///
/// # Errors
/// Where its variables are no number below a count of at most [`COUNT_MAX`], and where they are those of the script
/// of a Slurm job of several tasks, which is none of them.
pub(crate) fn detect(
    launchers: &[Launcher],
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Launched>, Refused> {
    for launcher in launchers {
        let Some(number) = launcher.read(variable, launcher.number)? else { continue };
        let Some((of, of_name)) = launcher.count(variable)? else {
            if number == 0 && !launcher.is_one_of_many {
                continue;
            }
            return Err(launcher.refuse(variable));
        };
        let first = launcher.read_optional(variable, launcher.first)?.unwrap_or(0);
        let step = launcher.read_optional(variable, launcher.step)?.unwrap_or(1).max(1);
        let number = number.checked_sub(first).filter(|number| number.is_multiple_of(step)).map(|number| number / step);
        return match number.filter(|number| *number < of && of <= COUNT_MAX) {
            Some(number) if !(of_name == "SLURM_NTASKS" && of > 1 && is_batch_script(variable)) => {
                Ok(Some(Launched { number, of, by: launcher.number }))
            }
            _ => Err(launcher.refuse(variable)),
        };
    }
    Ok(None)
}

/// Whether this is the script of a Slurm job and no step of it, by what `srun` alone sets.
fn is_batch_script(variable: &dyn Fn(&str) -> Option<String>) -> bool {
    variable("SLURM_JOB_ID").is_some() && variable("SLURM_STEP_ID").is_none()
}

impl Launcher {
    fn count(&self, variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<(u64, &'static str)>, Refused> {
        for &name in self.of {
            if let Some(of) = self.read(variable, name)? {
                return Ok(Some((of, name)));
            }
        }
        Ok(None)
    }

    fn read_optional(
        &self,
        variable: &dyn Fn(&str) -> Option<String>,
        name: Option<&str>,
    ) -> Result<Option<u64>, Refused> {
        name.map_or(Ok(None), |name| self.read(variable, name))
    }

    fn read(&self, variable: &dyn Fn(&str) -> Option<String>, name: &str) -> Result<Option<u64>, Refused> {
        let Some(text) = variable(name) else { return Ok(None) };
        text.trim().parse().map(Some).map_err(|_| self.refuse(variable))
    }

    fn refuse(&self, variable: &dyn Fn(&str) -> Option<String>) -> Refused {
        let names = [self.number].into_iter().chain(self.of.iter().copied()).chain(self.first).chain(self.step);
        let values: Vec<_> =
            names.map(|name| format!("{name}={}", variable(name).unwrap_or("(not set)".into()))).collect();
        Refused(values.join(" "))
    }
}
