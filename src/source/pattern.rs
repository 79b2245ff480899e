//! Names of many shards in one: braces and wildcards.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// The most paths that braces may stand for.
const PATHS_MAX: usize = 1_000_000;

/// Whether there is anything to expand.
pub(super) fn is_pattern(spec: &[u8]) -> bool {
    spec.iter().any(|byte| b"{*?".contains(byte))
}

/// All paths that a pattern stands for: braces in the order written, wildcards by name.
///
/// # Errors
/// `InvalidParameter` for a pattern that is malformed or stands for more than a million paths,
/// `NotFound` if wildcards match nothing, `Io` if a folder cannot be listed. Paths from braces alone are
/// not looked up: they are opened next.
pub(super) fn expand(pattern: &Path) -> Result<Vec<PathBuf>> {
    let bytes = pattern.as_os_str().as_bytes();
    let expanded = expand_braces(bytes).map_err(|cause| {
        let error = Error::new(ErrorKind::InvalidParameter, format!("pattern \"{}\": {cause}", pattern.display()));
        error.with_remedy("write a range as {000..146} and a choice as {train,val}")
    })?;
    let mut paths = Vec::new();
    for path in expanded {
        if path.iter().any(|byte| b"*?".contains(byte)) {
            let matching = expand_wildcards(&path)?;
            if matching.is_empty() {
                let message = format!("no file matches \"{}\"", String::from_utf8_lossy(&path));
                return Err(Error::new(ErrorKind::NotFound, message)
                    .with_remedy("check the folder and the pattern; quote it, so that the shell leaves it alone"));
            }
            paths.extend(matching);
        } else {
            paths.push(OsString::from_vec(path).into());
        }
    }
    Ok(paths)
}

/// Expands the first brace and then, in each result, the rest: as in bash, with nesting.
pub(super) fn expand_braces(pattern: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    let Some(open) = memchr::memchr(b'{', pattern) else { return Ok(vec![pattern.to_vec()]) };
    let inner_len = matching_brace(&pattern[open + 1..]).ok_or("a brace is not closed")?;
    let inner = &pattern[open + 1..][..inner_len];
    let before = &pattern[..open];
    let mut choices = Vec::new();
    match range(inner)? {
        Some(numbers) => choices = numbers,
        None => {
            for choice in split_choices(inner) {
                choices.extend(expand_braces(choice)?);
            }
        }
    }
    let rest = expand_braces(&pattern[open + inner_len + 2..])?;
    if choices.len().saturating_mul(rest.len()) > PATHS_MAX {
        return Err("it stands for more than a million paths");
    }
    Ok(choices.iter().flat_map(|choice| rest.iter().map(move |rest| [before, choice, rest].concat())).collect())
}

/// The bytes up to the brace that closes one already open.
fn matching_brace(text: &[u8]) -> Option<usize> {
    let mut depth = 0;
    text.iter().position(|&byte| {
        depth += i32::from(byte == b'{') - i32::from(byte == b'}');
        depth < 0
    })
}

/// Splits at the commas that are in no inner brace.
fn split_choices(inner: &[u8]) -> Vec<&[u8]> {
    let mut depth = 0;
    let outside = |byte: &u8| {
        depth += i32::from(*byte == b'{') - i32::from(*byte == b'}');
        *byte == b',' && depth == 0
    };
    inner.split(outside).collect()
}

/// The numbers of `FROM..TO`, up or down, padded with zeros to the longer of the two if either is.
fn range(inner: &[u8]) -> Result<Option<Vec<Vec<u8>>>, &'static str> {
    let Some((from, to)) = std::str::from_utf8(inner).ok().and_then(|text| text.split_once("..")) else {
        return Ok(None);
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(from) || !is_number(to) {
        return Err("a range is not of two numbers");
    }
    let is_padded = |text: &str| text.len() > 1 && text.starts_with('0');
    let width = if is_padded(from) || is_padded(to) { from.len().max(to.len()) } else { 0 };
    let too_large = "a number of a range is too large";
    let (first, last): (u64, u64) = (from.parse().map_err(|_| too_large)?, to.parse().map_err(|_| too_large)?);
    if first.abs_diff(last) >= PATHS_MAX as u64 || width > 255 {
        return Err("it stands for more than a million paths");
    }
    let name = |number: u64| format!("{number:0width$}").into_bytes();
    Ok(Some(if first <= last { (first..=last).map(name).collect() } else { (last..=first).rev().map(name).collect() }))
}

/// The paths that match, by name. A wildcard stands for no slash, and not for a dot at the beginning.
fn expand_wildcards(pattern: &[u8]) -> Result<Vec<PathBuf>> {
    let mut paths = vec![PathBuf::from(if pattern.starts_with(b"/") { "/" } else { "" })];
    for part in pattern.split(|&byte| byte == b'/').filter(|part| !part.is_empty()) {
        let mut next = Vec::new();
        for path in &paths {
            if part.iter().any(|byte| b"*?".contains(byte)) {
                next.extend(matching_in(path, part)?);
            } else {
                next.push(path.join(std::ffi::OsStr::from_bytes(part)));
            }
        }
        paths = next;
    }
    // A part behind the last wildcard was put on without looking.
    paths.retain(|path| path.exists());
    paths.sort_unstable_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    Ok(paths)
}

fn matching_in(folder: &Path, pattern: &[u8]) -> Result<Vec<PathBuf>> {
    let listed = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    if !listed.is_dir() {
        return Ok(Vec::new());
    }
    let failed = |error| Error::io(format!("cannot list folder {}", listed.display()), error);
    let mut paths = Vec::new();
    for entry in fs::read_dir(listed).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let is_hidden = name.as_bytes().starts_with(b".") && !pattern.starts_with(b".");
        if !is_hidden && matches(pattern, name.as_bytes()) {
            paths.push(folder.join(&name));
        }
    }
    Ok(paths)
}

/// Whether a name matches a pattern of bytes, `*` (any number of any bytes) and `?` (any one byte).
///
/// Goes back to the last star alone, so the time is at most the product of the lengths.
pub(super) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, n));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match &mut star {
                Some((behind, from)) => {
                    *from += 1;
                    (p, n) = (*behind, *from);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn braces(pattern: &str) -> Vec<String> {
        let expanded = expand_braces(pattern.as_bytes()).unwrap();
        expanded.into_iter().map(|path| String::from_utf8(path).unwrap()).collect()
    }

    #[test]
    fn braces_expand_as_in_bash() {
        assert_eq!(braces("t-{000..002}.tar"), ["t-000.tar", "t-001.tar", "t-002.tar"]);
        assert_eq!(braces("{8..11}"), ["8", "9", "10", "11"]);
        assert_eq!(braces("{08..11}"), ["08", "09", "10", "11"]);
        assert_eq!(braces("{1..010}").first().unwrap(), "001");
        assert_eq!(braces("{0..0}"), ["0"]);
        assert_eq!(braces("{2..0}"), ["2", "1", "0"]);
        assert_eq!(braces("{a,b{1,2},}/{0..1}"), ["a/0", "a/1", "b1/0", "b1/1", "b2/0", "b2/1", "/0", "/1"]);
        assert_eq!(braces("x}y"), ["x}y"]);
    }

    #[test]
    fn malformed_and_endless_braces_are_refused() {
        for bad in
            ["{", "a{0..1", "{a..z}", "{0..}", "{1..9999999}", "{0..999}{0..999}{0..9}", "{0..99999999999999999999}"]
        {
            let error = expand(Path::new(bad)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{bad}");
            assert!(error.to_string().contains(bad) && error.remedy().is_some(), "{error}");
        }
    }

    #[test]
    fn wildcards_match() {
        for (pattern, name, expected) in [
            ("*.tar", "a.tar", true),
            ("*.tar", "a.tar.gz", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("t-??.tar", "t-07.tar", true),
            ("t-??.tar", "t-7.tar", false),
            ("*", "", true),
            ("?", "", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
        // Stars that could be tried in very many ways.
        assert!(!matches("a*".repeat(50).as_bytes(), "b".repeat(5000).as_bytes()));
        assert!(!matches(format!("{}b", "a*".repeat(50)).as_bytes(), "a".repeat(5000).as_bytes()));
    }
}
