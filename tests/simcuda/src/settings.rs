//! What a test asks of the driver: by the environment before it starts, or by `simcuda_configure`.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::result::Code;

/// The settings. Each field is the environment variable `SIMCUDA_` and its name in capitals.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which of the schedules that CUDA allows is run.
    pub seed: u64,
    /// File that gets the reports, a line each. Standard error otherwise.
    pub report: Option<PathBuf>,
    /// File that gets the instructions of each kernel when the process ends.
    pub stats: Option<PathBuf>,
    /// Calls that do nothing and say success.
    pub drop: Vec<Rule>,
    /// Calls that do nothing and fail.
    pub fail: Vec<Rule>,
    /// Calls whose work, or which themselves, break the context.
    pub sticky: Vec<Rule>,
    /// Text replaced in each module that has it.
    pub ptx_edit: Option<(String, String)>,
    /// Memory of each device.
    pub memory_bytes: u64,
    /// How many devices there are.
    pub devices: usize,
    /// Whether calls and operations are written to standard error.
    pub trace: bool,
    /// Kinds of report that are not made.
    pub ignore: Vec<String>,
    /// Work that nobody waits for is begun after so long; 0 for never.
    pub idle_ms: u64,
    /// So long may a stream wait for a value that the host is to write.
    pub value_ms: u64,
}

/// Calls that are singled out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The entry point, with or without `_v2`.
    pub name: String,
    /// Which of its calls, from 1; 0 for all.
    pub nth: u64,
    /// The result in question.
    pub code: Code,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 1,
            report: None,
            stats: None,
            drop: Vec::new(),
            fail: Vec::new(),
            sticky: Vec::new(),
            ptx_edit: None,
            memory_bytes: 16 << 30,
            devices: 1,
            trace: false,
            ignore: Vec::new(),
            idle_ms: 500,
            value_ms: 10_000,
        }
    }
}

impl Settings {
    /// Reads the environment. Also returns, in words, what of it makes no sense.
    pub fn from_environment() -> (Self, Vec<String>) {
        let mut settings = Self::default();
        let mut wrong = Vec::new();
        for (name, value) in std::env::vars() {
            if let Some(name) = name.strip_prefix("SIMCUDA_") {
                wrong.extend(settings.set(name, &value).err());
            }
        }
        (settings, wrong)
    }

    /// Sets one by its name, in either case, without the prefix. An empty value is the default.
    ///
    /// # Errors
    /// In words, if there is no such setting or the value is none of its.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let wrong = |what: &str| format!("{name}={value}: {what}");
        let number = |default: u64| match value {
            "" => Ok(default),
            _ => value.parse().map_err(|_| wrong("not a number")),
        };
        let path = || (!value.is_empty()).then(|| PathBuf::from(value));
        let default = Self::default();
        match name.to_ascii_lowercase().as_str() {
            "seed" => self.seed = number(default.seed)?,
            "report" => self.report = path(),
            "stats" => self.stats = path(),
            "drop" => self.drop = rules(value, false).map_err(|what| wrong(&what))?,
            "fail" => self.fail = rules(value, true).map_err(|what| wrong(&what))?,
            "sticky" => self.sticky = rules(value, true).map_err(|what| wrong(&what))?,
            "ptx_edit" if value.is_empty() => self.ptx_edit = None,
            "ptx_edit" => {
                let (old, new) = value.split_once("=>").ok_or_else(|| wrong("not of the form old=>new"))?;
                self.ptx_edit = Some((old.to_owned(), new.to_owned()));
            }
            "memory_bytes" => self.memory_bytes = number(default.memory_bytes)?,
            "devices" => self.devices = number(default.devices as u64)? as usize,
            "trace" => self.trace = !matches!(value, "" | "0"),
            "ignore" => self.ignore = value.split(',').filter(|kind| !kind.is_empty()).map(str::to_owned).collect(),
            "idle_ms" => self.idle_ms = number(default.idle_ms)?,
            "value_ms" => self.value_ms = number(default.value_ms)?,
            _ => return Err(wrong("there is no such setting")),
        }
        Ok(())
    }
}

fn rules(value: &str, coded: bool) -> Result<Vec<Rule>, String> {
    value.split(',').filter(|rule| !rule.is_empty()).map(|rule| parse_rule(rule, coded)).collect()
}

fn parse_rule(text: &str, coded: bool) -> Result<Rule, String> {
    let (call, code) = match text.split_once(':') {
        Some((call, code)) if coded => (call, code.parse().map_err(|_| format!("{code:?} is no CUresult"))?),
        None if !coded => (text, 0),
        _ if coded => return Err("not of the form call#n:result".into()),
        _ => return Err("not of the form call#n".into()),
    };
    let (name, nth) = match call.split_once('#') {
        Some((name, nth)) => (name, nth.parse().map_err(|_| format!("{nth:?} is no count"))?),
        None => (call, 0),
    };
    Ok(Rule { name: name.to_owned(), nth, code: Code(code) })
}

/// What a rule does to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Pass,
    /// It does nothing and says success.
    Drop,
    /// It does nothing and says this.
    Fail(Code),
    /// Its work breaks the context with this.
    Sticky(Code),
}

/// How often each entry point was called.
#[derive(Debug, Default)]
pub struct Calls {
    counts: HashMap<String, u64>,
    /// Rules that singled out a call.
    used: Vec<Rule>,
}

impl Calls {
    /// Counts a call and says what becomes of it.
    pub fn count(&mut self, name: &str, settings: &Settings) -> Verdict {
        // Rules name calls as they are written in C, where a macro adds the version.
        let plain = name.trim_end_matches("_v2").trim_end_matches("_ptsz");
        let count = self.counts.entry(plain.to_owned()).or_insert(0);
        *count += 1;
        let chosen = |rules: &[Rule]| {
            let mut rules = rules.iter().filter(|rule| rule.name == plain || rule.name == name);
            rules.find(|rule| rule.nth == 0 || rule.nth == *count).cloned()
        };
        let (rule, verdict) = if let Some(rule) = chosen(&settings.drop) {
            (rule, Verdict::Drop)
        } else if let Some(rule) = chosen(&settings.fail) {
            (rule.clone(), Verdict::Fail(rule.code))
        } else if let Some(rule) = chosen(&settings.sticky) {
            (rule.clone(), Verdict::Sticky(rule.code))
        } else {
            return Verdict::Pass;
        };
        self.used.push(rule);
        verdict
    }

    /// A call's name with its number, as a rule would single it out. What follows a space in the name is a remark.
    pub fn label(&self, name: &str) -> String {
        let (call, remark) = name.split_once(' ').unwrap_or((name, ""));
        match (self.counts.get(call), remark) {
            (None, _) => name.to_owned(),
            (Some(count), "") => format!("{call}#{count}"),
            (Some(count), remark) => format!("{call}#{count} {remark}"),
        }
    }

    /// Rules that singled out nothing: a test that planted them proves nothing.
    pub fn unused<'a>(&'a self, settings: &'a Settings) -> impl Iterator<Item = &'a Rule> {
        let all = settings.drop.iter().chain(&settings.fail).chain(&settings.sticky);
        all.filter(|rule| !self.used.contains(rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_single_out_the_call_they_name() {
        let mut settings = Settings::default();
        settings.set("drop", "cuStreamWaitEvent#2").unwrap();
        settings.set("FAIL", "cuMemAlloc#1:2,cuMemFree:1").unwrap();
        let mut calls = Calls::default();
        assert_eq!(calls.count("cuStreamWaitEvent", &settings), Verdict::Pass);
        assert_eq!(calls.count("cuStreamWaitEvent", &settings), Verdict::Drop);
        assert_eq!(calls.count("cuStreamWaitEvent", &settings), Verdict::Pass);
        assert_eq!(calls.count("cuMemAlloc_v2", &settings), Verdict::Fail(Code::OUT_OF_MEMORY));
        assert_eq!(calls.count("cuMemAlloc_v2", &settings), Verdict::Pass);
        assert_eq!(calls.unused(&settings).map(|rule| rule.name.as_str()).collect::<Vec<_>>(), ["cuMemFree"]);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let mut settings = Settings::default();
        for (name, value) in
            [("drop", "cuInit#x"), ("drop", "cuInit:1"), ("fail", "cuInit"), ("speed", "1"), ("seed", "x")]
        {
            assert!(settings.set(name, value).unwrap_err().starts_with(&format!("{name}={value}: ")));
        }
    }
}
