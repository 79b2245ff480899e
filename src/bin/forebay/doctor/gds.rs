//! GPUDirect Storage: whether bytes from a path can reach a GPU without passing through host memory.

use std::path::{Path, PathBuf};

use forebay::engine::cufile::gds::{Finding, Gds};

use super::{Fact, Section};

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

/// Reads from a path by cuFile, and says by which way the bytes came. None where this build reads nothing by cuFile.
fn gds_test_read(_path: &Path) -> Option<Fact> {
    None
}
