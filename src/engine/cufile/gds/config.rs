//! What cuFile is told: its JSON file, which may hold comments, and the environment variables that come before it.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Finding;
use crate::storage::Machine;

/// Where cuFile looks unless `CUFILE_ENV_PATH_JSON` says otherwise.
const DEFAULT_PATH: &str = "/etc/cufile.json";

/// The configuration in effect.
pub(super) struct Config {
    path: PathBuf,
    /// What is wrong with the file.
    broken: Option<String>,
    /// Whether the default file is not there, which leaves the defaults.
    missing: bool,
    json: Value,
    /// `CUFILE_FORCE_COMPAT_MODE`.
    force_compat: Option<bool>,
    /// `CUFILE_USE_PCIP2PDMA`.
    use_p2pdma: Option<bool>,
}

impl Config {
    pub(super) fn look(machine: &Machine) -> Self {
        let named = machine.variable("CUFILE_ENV_PATH_JSON").map(PathBuf::from);
        let path = named.clone().unwrap_or_else(|| DEFAULT_PATH.into());
        let (json, broken, missing) = match machine.text(&path) {
            Ok(text) => match serde_json::from_str(&without_comments(&text)) {
                Ok(json) => (json, None, false),
                Err(error) => (Value::Null, Some(format!("it is no JSON: {error}")), false),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => (Value::Null, None, true),
            Err(error) => (Value::Null, Some(error.to_string()), false),
        };
        let force_compat = machine.flag("CUFILE_FORCE_COMPAT_MODE");
        let use_p2pdma = machine.flag("CUFILE_USE_PCIP2PDMA");
        Self { path, broken, missing, json, force_compat, use_p2pdma }
    }

    /// What holds for every path.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut findings = vec![self.finding()];
        if self.force_compat == Some(true) {
            let found = "CUFILE_FORCE_COMPAT_MODE asks for the way through host memory";
            findings.push(Finding::prevents("compatibility mode", found, "unset CUFILE_FORCE_COMPAT_MODE"));
        } else if self.force_compat.is_none() && self.flag(&["properties", "force_compat_mode"]) == Some(true) {
            let found = format!("properties.force_compat_mode is true in {}", self.path.display());
            findings.push(Finding::prevents("compatibility mode", found, "set it to false, or leave it out"));
        }
        findings
    }

    /// Whether P2PDMA is to be used at all.
    pub(super) fn wants_p2pdma(&self) -> bool {
        self.use_p2pdma.or(self.flag(&["properties", "use_pci_p2pdma"])).unwrap_or(false)
    }

    /// Whether P2PDMA is to be used for local NVMe drives, where the file says: releases from 1.16 on ask for each kind of
    /// storage.
    pub(super) fn p2pdma_for_nvme(&self) -> Option<bool> {
        self.flag(&["block", "nvme", "use_pci_p2pdma"])
    }

    /// Whether a deny list names something: of `drivers`, `devices`, `mounts` or `filesystems`.
    pub(super) fn denies(&self, list: &str, name: &str) -> bool {
        ["denylist", "blacklist"].into_iter().any(|key| {
            let names = self.json.get(key).and_then(|lists| lists.get(list)).and_then(Value::as_array);
            names.is_some_and(|names| names.iter().any(|denied| denied.as_str() == Some(name)))
        })
    }

    /// The file, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn finding(&self) -> Finding {
        let path = self.path.display();
        match &self.broken {
            Some(cause) => {
                let remedy = "mend it, or name another by CUFILE_ENV_PATH_JSON; without one the defaults hold";
                Finding::prevents("cufile.json", format!("{path}: {cause}"), remedy)
            }
            None if self.missing => Finding::well("cufile.json", format!("{path} is not there: the defaults hold")),
            None => {
                let compat = match self.flag(&["properties", "allow_compat_mode"]) {
                    Some(false) => "what cannot go directly fails",
                    _ => "what cannot go directly goes through host memory",
                };
                Finding::well("cufile.json", format!("{path}: {compat}"))
            }
        }
    }

    fn flag(&self, path: &[&str]) -> Option<bool> {
        path.iter().try_fold(&self.json, |value, key| value.get(key))?.as_bool()
    }
}

/// JSON with blanks where it had comments, of either of C's kinds, and where a comma stood before a closing bracket: cuFile's
/// reader takes both, and its own file has them.
fn without_comments(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    // Where the last comma stands that nothing but blanks has followed.
    let mut comma = None;
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let len_bytes = match next {
            '"' => string_len(rest),
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest[2..].find("*/").map_or(rest.len(), |end| end + 4),
            other => other.len_utf8(),
        };
        let (token, behind) = rest.split_at(len_bytes);
        rest = behind;
        if token.len() > 1 && next == '/' {
            // Lines stay lines, for the message of what is wrong in one.
            plain.extend(token.chars().map(|char| if char == '\n' { '\n' } else { ' ' }));
            continue;
        }
        if matches!(next, '}' | ']')
            && let Some(at) = comma
        {
            plain.replace_range(at..at + 1, " ");
        }
        match next {
            ',' => comma = Some(plain.len()),
            blank if blank.is_ascii_whitespace() => {}
            _ => comma = None,
        }
        plain.push_str(token);
    }
    plain
}

/// The length of the string that a text begins with, its quotes included.
fn string_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn comments_and_last_commas_are_taken_out_and_strings_are_left_alone() {
        let text = r#"
            // NVIDIA's file begins like this
            { "logging": { // a comment
                "dir": "/home/a//b", "odd": "\" // no comment", /* another, */
                "list": [ "a", "b", ],  // the last comma
            }, }"#;
        let json: Value = serde_json::from_str(&without_comments(text)).unwrap();
        assert_eq!(json["logging"]["dir"], "/home/a//b");
        assert_eq!(json["logging"]["odd"], "\" // no comment");
        assert_eq!(json["logging"]["list"].as_array().unwrap().len(), 2);
        for broken in ["\"", "\"\\", "/*", "/* *", "//", "/", ",}", "{\"a\":,}"] {
            assert!(serde_json::from_str::<Value>(&without_comments(broken)).is_err(), "{broken}");
        }
    }

    proptest! {
        #[test]
        fn any_text_keeps_its_lines(text in "[\\\\\"/*,{}\\[\\]\na\u{e9} ]{0,40}") {
            let plain = without_comments(&text);
            prop_assert_eq!(plain.matches('\n').count(), text.matches('\n').count());
            prop_assert!(text.contains(['/', ',']) || plain == text);
        }
    }
}
