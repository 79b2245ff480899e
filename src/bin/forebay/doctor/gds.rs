//! GPUDirect Storage: whether bytes from a path can reach a GPU without passing through host memory.

use std::path::{Path, PathBuf};

use forebay::device::Device;
use forebay::engine::cufile::gds::{Finding, Gds};
use forebay::engine::{CuFile, RequirePath};
use forebay::memory::DeviceArena;
use forebay::{Error, ErrorKind};

use super::storage::{cause, first_file};
use super::{Fact, Section};

/// What the test read reads at most.
const TEST_READ_BYTES: usize = 1 << 20;

const TITLE: &str = "GPUDirect Storage";

/// A section for each path, or one of the machine where none is named.
pub fn sections(paths: &[PathBuf]) -> Vec<Section> {
    let machine = Gds::examine_machine();
    // Without a driver every path would say the same.
    if !machine.has_driver || paths.is_empty() {
        return vec![Section { title: TITLE.into(), facts: facts(machine, None) }];
    }
    let section = |path: &PathBuf| Section {
        title: format!("{TITLE} from {}", path.display()),
        facts: facts(Gds::examine(path), Some(path)),
    };
    paths.iter().map(section).collect()
}

fn facts(gds: Gds, path: Option<&Path>) -> Vec<Fact> {
    if !gds.has_driver {
        // A machine without a GPU lacks nothing: what --device auto does here stands in the section before.
        let found = gds.findings.into_iter().map(|finding| finding.found).next().unwrap_or_default();
        return vec![Fact::new("direct path", format!("none: {found}"))];
    }
    let mut facts = vec![Fact::new("direct path", gds.verdict.to_string())];
    facts.extend(gds.findings.into_iter().map(fact));
    facts.extend(path.and_then(gds_test_read));
    facts
}

fn fact(finding: Finding) -> Fact {
    let fact = Fact::new(finding.what, finding.found);
    match finding.shortfall {
        Some(shortfall) => fact.short(shortfall.cost, shortfall.remedy),
        None => fact,
    }
}

/// Reads from a path by cuFile, and says by which way the bytes came. None where there is no file to read.
fn gds_test_read(path: &Path) -> Option<Fact> {
    let file = if path.is_dir() { first_file(path).ok()?? } else { path.to_owned() };
    let read = DeviceArena::new(Device::Cuda(0), TEST_READ_BYTES).and_then(|arena| {
        let cufile = CuFile::open(std::slice::from_ref(&arena), RequirePath::Any)?;
        let region = arena.alloc(TEST_READ_BYTES)?;
        let region = region.ok_or_else(|| Error::new(ErrorKind::Internal, "a new arena has no room"))?;
        let path = cufile.prove(&file, region)?;
        Ok((path, cufile.version(), cufile.uncounted()))
    });
    let remedy = "mend what is marked above, from the top";
    Some(match read {
        Ok((path, version, uncounted)) => {
            let version = version.map_or_else(String::new, |version| format!(" {version}"));
            let found = format!("libcufile{version} read {} to cuda:0 by {}", file.display(), path.name());
            let fact = Fact::new("test read", found);
            match (path.is_direct(), uncounted) {
                (true, _) => fact,
                (false, Some(why)) => fact.short(
                    format!("nobody can say by which path bytes come: {why}"),
                    "use libcufile 1.15 or later (CUDA 13), which counts reads by path",
                ),
                (false, None) => fact.short("every byte goes through host memory", remedy),
            }
        }
        Err(error) => Fact::new("test read", cause(&error))
            .short("cuFile does not read here at all; loaders use io_uring", error.remedy().unwrap_or(remedy)),
    })
}
