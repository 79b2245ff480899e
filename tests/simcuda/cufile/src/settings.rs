//! What a test asks of the library: by the environment before it is used, or by `simcufile_configure`.

use std::ffi::c_int;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use crate::driver::report_kind;
use crate::text;
use crate::watch;

/// How bytes come from storage to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By nvidia-fs.
    Nvfs,
    /// By the kernel's PCI peer-to-peer DMA.
    P2p,
    /// Through the host's memory: compatibility mode.
    Posix,
}

/// The settings. Each field is the environment variable `SIMCUFILE_` and its name in capitals.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How bytes come to the device, and what comes otherwise.
    pub path: (Way, Vec<Exception>),
    /// Reads that fail, by their number.
    pub fail: Vec<Rule>,
    /// Reads that give so many bytes at most.
    pub short: Vec<Rule>,
    /// Reads of batches that do not end unless they are cancelled.
    pub stuck: Vec<Rule>,
    /// What `cuFileGetVersion` says: 1200 for 1.20.
    pub version: c_int,
    /// Files beneath the first folder are read from the file of the same name beneath the second.
    pub behind: Option<(PathBuf, PathBuf)>,
    /// Whether bytes that were read directly are looked for in the host's memory.
    pub watch: bool,
}

/// Reads that go another way than the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// The way that they go.
    pub way: Way,
    /// Which they are.
    pub reads: Reads,
}

/// Reads that are singled out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reads {
    /// One in so many.
    Every(u64),
    /// Those of files beneath a folder.
    Beneath(PathBuf),
}

/// A read that is singled out, and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which, from 1; 0 for all.
    pub nth: u64,
    /// What is to be: an errno or a status, bytes, nothing.
    pub value: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            path: (Way::Nvfs, Vec::new()),
            fail: Vec::new(),
            short: Vec::new(),
            stuck: Vec::new(),
            version: 1200,
            behind: None,
            watch: false,
        }
    }
}

/// The settings, locked.
pub fn settings() -> MutexGuard<'static, Settings> {
    static SETTINGS: LazyLock<Mutex<Settings>> = LazyLock::new(|| {
        let mut settings = Settings::default();
        for (name, value) in std::env::vars() {
            if let Some(name) = name.strip_prefix("SIMCUFILE_")
                && let Err(what) = settings.set(name, &value)
            {
                report_kind("setting", &what);
            }
        }
        Mutex::new(settings)
    });
    SETTINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets what the environment variable `SIMCUFILE_` and the name would have. Returns 0, or 1 if that makes no sense, which is
/// reported.
///
/// # Safety
/// Both are strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn simcufile_configure(name: *const std::ffi::c_char, value: *const std::ffi::c_char) -> c_int {
    // SAFETY: as this function demands.
    let (name, value) = unsafe { (text(name), text(value)) };
    let mut settings = settings();
    let outcome = settings.set(&name, &value);
    let watches = settings.watch;
    drop(settings);
    watch::set(watches);
    match outcome {
        Ok(()) => 0,
        Err(what) => {
            report_kind("setting", &what);
            1
        }
    }
}

impl Settings {
    /// Sets one by its name, in either case, without the prefix. An empty value is the default.
    ///
    /// # Errors
    /// In words, if there is no such setting or the value is none of its.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let wrong = |what: &str| format!("SIMCUFILE_{name}={value}: {what}");
        let default = Self::default();
        match name.to_ascii_lowercase().as_str() {
            "path" if value.is_empty() => self.path = default.path,
            "path" => self.path = path(value).map_err(|what| wrong(&what))?,
            "fail" => self.fail = rules(value, true).map_err(|what| wrong(&what))?,
            "short" => self.short = rules(value, true).map_err(|what| wrong(&what))?,
            "stuck" => self.stuck = rules(value, false).map_err(|what| wrong(&what))?,
            "version" if value.is_empty() => self.version = default.version,
            "version" => self.version = version(value).ok_or_else(|| wrong("not of the form 1.20.0"))?,
            "behind" if value.is_empty() => self.behind = None,
            "behind" => {
                let (seen, true_one) = value.split_once("=>").ok_or_else(|| wrong("not of the form dir=>dir"))?;
                let whole = |folder: &str| {
                    Path::new(folder).canonicalize().map_err(|error| wrong(&format!("{folder}: {error}")))
                };
                self.behind = Some((whole(seen)?, whole(true_one)?));
            }
            "watch" => self.watch = !matches!(value, "" | "0"),
            _ => return Err(wrong("there is no such setting")),
        }
        Ok(())
    }

    /// The way that a read goes, by its number among all reads and its file.
    pub fn way(&self, read: u64, file: &Path) -> Way {
        let (most, others) = &self.path;
        let one = others.iter().find(|other| match &other.reads {
            Reads::Every(every) => read.is_multiple_of(*every),
            Reads::Beneath(folder) => file.starts_with(folder),
        });
        one.map_or(*most, |other| other.way)
    }

    /// The way that all reads of a file go, as far as the file decides.
    pub fn way_of_file(&self, file: &Path) -> Way {
        let (most, others) = &self.path;
        let one =
            others.iter().find(|other| matches!(&other.reads, Reads::Beneath(folder) if file.starts_with(folder)));
        one.map_or(*most, |other| other.way)
    }

    /// Where the bytes of a file are.
    pub fn source(&self, file: &Path) -> Option<PathBuf> {
        let (seen, true_one) = self.behind.as_ref()?;
        Some(true_one.join(file.strip_prefix(seen).ok()?))
    }
}

impl Way {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "nvfs" => Ok(Self::Nvfs),
            "p2p" => Ok(Self::P2p),
            "posix" => Ok(Self::Posix),
            _ => Err(format!("{text:?} is none of nvfs, p2p, posix")),
        }
    }
}

fn path(value: &str) -> Result<(Way, Vec<Exception>), String> {
    let mut parts = value.split(',');
    let most = Way::parse(parts.next().unwrap_or_default())?;
    let others = parts.map(|part| {
        let (way, reads) = part.split_once(':').ok_or("an exception is not of the form way:n or way:/folder")?;
        let reads = match reads.parse() {
            Ok(0) => return Err("every 0th read is none".to_owned()),
            Ok(every) => Reads::Every(every),
            Err(_) => {
                let folder = Path::new(reads).canonicalize().map_err(|error| format!("{reads}: {error}"))?;
                Reads::Beneath(folder)
            }
        };
        Ok(Exception { way: Way::parse(way)?, reads })
    });
    Ok((most, others.collect::<Result<_, _>>()?))
}

fn rules(value: &str, valued: bool) -> Result<Vec<Rule>, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text:?} is not a number"));
    let rule = |text: &str| match text.split_once(':') {
        Some((nth, value)) if valued => Ok(Rule { nth: number(nth)?, value: number(value)? }),
        None if !valued => Ok(Rule { nth: number(text)?, value: 0 }),
        _ => Err(format!("{text:?} is not of the form {}", if valued { "n:value" } else { "n" })),
    };
    value.split(',').filter(|text| !text.is_empty()).map(rule).collect()
}

fn version(value: &str) -> Option<c_int> {
    let mut numbers = value.split('.').map(|number| number.parse::<c_int>().ok().filter(|number| *number < 100));
    let (major, minor) = (numbers.next()??, numbers.next()??);
    numbers.all(|number| number.is_some()).then_some(1000 * major + 10 * minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_by_number_and_by_folder() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let mut settings = Settings::default();
        settings.set("PATH", &format!("nvfs,posix:3,p2p:{}", folder.display())).unwrap();
        let elsewhere = Path::new("/elsewhere/file");
        let ways: Vec<Way> = (1..=6).map(|read| settings.way(read, elsewhere)).collect();
        assert_eq!(ways, [Way::Nvfs, Way::Nvfs, Way::Posix, Way::Nvfs, Way::Nvfs, Way::Posix]);
        assert_eq!(settings.way(1, &folder.join("file")), Way::P2p);
        assert_eq!((settings.way_of_file(elsewhere), settings.way_of_file(&folder.join("a"))), (Way::Nvfs, Way::P2p));
        settings.set("path", "").unwrap();
        assert_eq!(settings.way(3, elsewhere), Way::Nvfs);
    }

    #[test]
    fn versions_are_numbers_as_the_library_says_them() {
        let mut settings = Settings::default();
        for (text, number) in [("1.14.1", 1140), ("1.20", 1200), ("1.15.0.42", 1150), ("", 1200)] {
            settings.set("version", text).unwrap();
            assert_eq!(settings.version, number, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let mut settings = Settings::default();
        let wrong = [
            ("path", "rdma"),
            ("path", "nvfs,posix:0"),
            ("path", "nvfs,posix"),
            ("fail", "3"),
            ("stuck", "3:1"),
            ("short", "x:1"),
            ("version", "new"),
            ("behind", "/nowhere"),
            ("behind", "/nowhere=>/tmp"),
            ("speed", "1"),
        ];
        for (name, value) in wrong {
            let said = settings.set(name, value).unwrap_err();
            assert!(said.starts_with(&format!("SIMCUFILE_{name}={value}: ")), "{said}");
        }
    }
}
