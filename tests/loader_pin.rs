//! Where a loader's threads run. A binary of its own, since it looks at all threads of the process.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use forebay::loader::Pin;
use forebay::{Augment, ErrorKind, Loader, LoaderBuilder};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

fn processors(set: &CpuSet) -> BTreeSet<usize> {
    (0..CpuSet::count()).filter(|processor| set.is_set(*processor) == Ok(true)).collect()
}

/// The processors that each thread of a loader may run on, by the thread's name.
fn of_threads() -> Vec<(String, BTreeSet<usize>)> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("tasks").flatten();
    let threads = tasks.filter_map(|task| {
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let id = task.file_name().to_str()?.parse().ok()?;
        let set = sched_getaffinity(Pid::from_raw(id)).ok()?;
        name.starts_with("forebay-").then(|| (name.trim().to_owned(), processors(&set)))
    });
    threads.collect()
}

/// What the kernel says of node 0, if it says anything.
fn node_0() -> Option<BTreeSet<usize>> {
    let list = std::fs::read_to_string("/sys/devices/system/node/node0/cpulist").ok()?;
    let mut processors = BTreeSet::new();
    for part in list.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        processors.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(processors)
}

#[test]
fn threads_run_where_they_are_told_to() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &common::samples(24, 2)).display().to_string();
    let open = |pin| -> LoaderBuilder {
        let augment = Augment::imagenet_train(16).build().expect("augmentation");
        Loader::open(&folder).augment(augment).batch_size(4).pin(pin)
    };
    let allowed = sched_getaffinity(Pid::from_raw(0)).expect("affinity");
    let error = open(Pin::Node(255)).build().err().expect("no such node");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("node 255"), "{error}");

    let mut loader = open(Pin::Off).build().expect("loader");
    let mut epochs = loader.epochs(0..9);
    let _batch = epochs.next().expect("a batch").expect("batch");
    let threads = of_threads();
    assert!(threads.len() >= 2 && threads.iter().all(|(_, set)| *set == processors(&allowed)), "{threads:?}");
    drop(epochs);
    assert_eq!(loader.report().pinned, None);

    let Some(of_node) = node_0().filter(|of_node| of_node.iter().any(|one| allowed.is_set(*one) == Ok(true))) else {
        println!("skipped: the kernel tells of no nodes");
        return;
    };
    // Of the processors of the node only those that the process may use.
    let first = *of_node.iter().find(|one| allowed.is_set(**one) == Ok(true)).expect("was found");
    let mut one = CpuSet::new();
    one.set(first).expect("a processor");
    for set in [allowed, one] {
        sched_setaffinity(Pid::from_raw(0), &set).expect("affinity");
        let mut loader = open(Pin::Node(0)).build().expect("loader");
        let pinned = loader.report().pinned.expect("pinned");
        sched_setaffinity(Pid::from_raw(0), &allowed).expect("affinity");
        let expected: BTreeSet<_> = of_node.intersection(&processors(&set)).copied().collect();
        assert_eq!((pinned.node, pinned.processors), (0, expected.len()));
        let mut epochs = loader.epochs(0..9);
        let _batch = epochs.next().expect("a batch").expect("batch");
        let mut threads = of_threads();
        // One that has just started may be on its way there.
        for _ in 0..500 {
            if threads.iter().all(|(_, set)| *set == expected) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
            threads = of_threads();
        }
        assert!(threads.iter().all(|(_, set)| *set == expected), "{threads:?} instead of {expected:?}");
        for name in ["forebay-feed", "forebay-decode"] {
            let count = threads.iter().filter(|(of, _)| of.starts_with(name)).count();
            assert!(count >= 1 && (count <= expected.len() || name == "forebay-feed"), "{name}: {threads:?}");
        }
        drop(epochs);
        let report = loader.report();
        assert!(report.fallbacks.iter().all(|fallback| fallback.what != "pinned threads"), "{report}");
        assert!(report.to_string().contains(&format!("pinned to the {} processors of node 0", expected.len())));
    }
}
