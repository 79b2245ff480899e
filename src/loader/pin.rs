//! Which processors a loader's threads run on: those of the node of the machine that its bytes go through.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::error::{Error, ErrorKind, Result};
use crate::memory::numa;
use crate::report::{Fallback, Pinned};

/// Where a loader's threads run, on a machine of several nodes (NUMA). As text: `auto`, `off` or the number of a node.
///
/// Whatever is chosen, it is processors that the thread which builds the loader may use itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Pin {
    /// On the node of the CUDA device, or else that of the drive that samples lie on; on any where there is one node only or
    /// nothing says which. The default.
    #[default]
    Auto,
    /// Wherever the system puts them.
    Off,
    /// On this node.
    Node(u32),
}

/// The processors of a node that may be used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Processors {
    pinned: Pinned,
    set: CpuSet,
}

impl Pin {
    /// The node and the number of its processors that threads of a loader would run on which reads the file at `path` for
    /// the device at a place on the PCI bus, such as `0000:17:00.0`. None on a machine of one node, or where nothing says.
    pub fn node_of(path: Option<&Path>, pci: Option<&str>) -> Option<Pinned> {
        let (processors, _) = Self::Auto.resolve(|| numa::node(path, pci)).ok()?;
        Some(processors?.pinned)
    }

    /// The processors, if not any, on a machine where bytes go through `node`; and why not, where there would be some.
    ///
    /// # Errors
    /// `Unavailable` for a node that was asked for by number and has no processor for this process.
    pub(super) fn resolve(self, node: impl FnOnce() -> Option<u32>) -> Result<(Option<Processors>, Option<Fallback>)> {
        self.resolve_at(Path::new(numa::SYS), sched_getaffinity(Pid::from_raw(0)), node)
    }

    fn resolve_at(
        self,
        sys: &Path,
        allowed: nix::Result<CpuSet>,
        node: impl FnOnce() -> Option<u32>,
    ) -> Result<(Option<Processors>, Option<Fallback>)> {
        let node = match self {
            Self::Off => None,
            Self::Auto => node(),
            Self::Node(node) => Some(node),
        };
        let Some(node) = node else { return Ok((None, None)) };
        let cause = match Processors::of(sys, allowed, node) {
            Ok(processors) => return Ok((Some(processors), None)),
            Err(cause) => cause,
        };
        match self {
            Self::Node(_) => Err(Error::new(ErrorKind::Unavailable, format!("threads on node {node}: {cause}"))
                .with_remedy("see /sys/devices/system/node and `taskset -p`, or pin them to auto or off")),
            _ => Ok((None, Some(fallback(cause)))),
        }
    }
}

impl Processors {
    fn of(sys: &Path, allowed: nix::Result<CpuSet>, node: u32) -> std::result::Result<Self, String> {
        // The kernel has more processors than the set has places.
        let allowed = allowed.map_err(|errno| format!("what processors there are is not known: {errno}"))?;
        let of_node = numa::processors(sys, node, CpuSet::count() as u32);
        if of_node.is_empty() {
            return Err("the node has no processors".to_owned());
        }
        let (mut set, mut processors) = (CpuSet::new(), 0);
        for processor in of_node {
            let processor = processor as usize;
            if allowed.is_set(processor) == Ok(true) && set.set(processor).is_ok() {
                processors += 1;
            }
        }
        if processors == 0 {
            return Err("this process may use none of its processors".to_owned());
        }
        Ok(Self { pinned: Pinned { node, processors }, set })
    }

    pub(super) fn pinned(&self) -> Pinned {
        self.pinned
    }

    /// Binds the thread that calls.
    pub(super) fn pin_thread(&self) -> nix::Result<()> {
        sched_setaffinity(Pid::from_raw(0), &self.set)
    }

    /// What to report where that has failed.
    pub(super) fn unpinned(errno: Errno) -> Fallback {
        fallback(format!("sched_setaffinity: {errno}"))
    }
}

fn fallback(cause: String) -> Fallback {
    let fallback = Fallback {
        what: Fallback::PINNED,
        instead: "threads on any processor",
        cause,
        remedy: "let the process use the processors of that node (cpuset, taskset, numactl), or pin to off".to_owned(),
        count: 1,
    };
    log::info!("{fallback}");
    fallback
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Off => f.write_str("off"),
            Self::Node(node) => node.fmt(f),
        }
    }
}

impl FromStr for Pin {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            // `parse` takes a sign, which is part of no number of a node.
            _ if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().map(Self::Node).map_err(|_| unknown(text))
            }
            _ => Err(unknown(text)),
        }
    }
}

fn unknown(text: &str) -> Error {
    Error::invalid_parameter("pin", format_args!("{text:?}"), "auto, off or the number of a node is allowed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(processors: impl IntoIterator<Item = usize>) -> CpuSet {
        let mut set = CpuSet::new();
        processors.into_iter().for_each(|processor| set.set(processor).unwrap());
        set
    }

    /// Two nodes of eight processors, and one of memory alone.
    fn machine() -> tempfile::TempDir {
        let sys = tempfile::tempdir().unwrap();
        for (node, list) in [(0, "0-3,8-11\n"), (1, "4-7,12-15\n"), (2, "\n")] {
            let node = sys.path().join(format!("devices/system/node/node{node}"));
            std::fs::create_dir_all(&node).unwrap();
            std::fs::write(node.join("cpulist"), list).unwrap();
        }
        sys
    }

    #[test]
    fn names_round_trip() {
        for pin in [Pin::Auto, Pin::Off, Pin::Node(0), Pin::Node(17)] {
            assert_eq!(pin.to_string().parse::<Pin>().unwrap(), pin);
        }
        for unknown in ["", "on", "-1", "+1", "4294967296", "0-1", "node0"] {
            assert!(unknown.parse::<Pin>().unwrap_err().to_string().contains("pin"), "{unknown:?}");
        }
    }

    #[test]
    fn threads_get_the_processors_of_the_node_that_the_process_may_use() {
        let sys = machine();
        let resolve = |pin: Pin, allowed, node| pin.resolve_at(sys.path(), Ok(allowed), || node);
        let all = set(0..16);
        assert_eq!(resolve(Pin::Auto, all, None).unwrap(), (None, None), "one node, or none known");
        assert_eq!(resolve(Pin::Off, all, Some(1)).unwrap(), (None, None));
        for (pin, node, allowed, expected) in [
            (Pin::Auto, Some(1), all, set([4, 5, 6, 7, 12, 13, 14, 15])),
            (Pin::Auto, Some(0), set([1, 9, 12]), set([1, 9])),
            (Pin::Node(0), Some(1), set(8..16), set(8..12)),
        ] {
            let (processors, fallback) = resolve(pin, allowed, node).unwrap();
            let processors = processors.unwrap();
            assert_eq!((processors.set, fallback), (expected, None), "{pin}");
            let count = (0..16).filter(|processor| expected.is_set(*processor) == Ok(true)).count();
            assert_eq!(processors.pinned().processors, count);
        }
        // What was left to us is a fallback, what was asked for by number an error.
        for (node, allowed, cause) in
            [(2, all, "has no processors"), (1, set(0..4), "may use none"), (9, all, "has no")]
        {
            let (processors, fallback) = resolve(Pin::Auto, allowed, Some(node)).unwrap();
            let fallback = fallback.unwrap();
            assert!(processors.is_none() && fallback.cause.contains(cause), "{fallback}");
            let error = resolve(Pin::Node(node), allowed, None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert!(
                error.to_string().contains(cause) && error.to_string().contains(&format!("node {node}")),
                "{error}"
            );
        }
        let unknown = Pin::Auto.resolve_at(sys.path(), Err(Errno::EINVAL), || Some(0)).unwrap();
        assert!(unknown.0.is_none() && unknown.1.unwrap().cause.contains("EINVAL"));
    }

    #[test]
    fn a_thread_that_is_pinned_runs_there_alone() {
        let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let first = (0..CpuSet::count()).find(|processor| allowed.is_set(*processor) == Ok(true)).unwrap();
        let pinned = Pinned { node: 0, processors: 1 };
        let processors = Processors { pinned, set: set([first]) };
        let (of_thread, of_child) = std::thread::spawn(move || {
            processors.pin_thread().unwrap();
            let own = || sched_getaffinity(Pid::from_raw(0)).unwrap();
            (own(), std::thread::spawn(own).join().unwrap())
        })
        .join()
        .unwrap();
        assert_eq!((of_thread, of_child), (processors.set, processors.set), "threads of the engine are there too");
        assert_eq!(sched_getaffinity(Pid::from_raw(0)).unwrap(), allowed, "no other thread is moved");
        let nowhere = Processors { pinned, set: CpuSet::new() };
        let errno = nowhere.pin_thread().unwrap_err();
        assert!(Processors::unpinned(errno).cause.contains("EINVAL"));
    }
}
