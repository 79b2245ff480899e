//! What samples are called in an archive.

use std::borrow::Cow;
use std::collections::HashSet;

use forebay::{Error, ErrorKind, Result};
use xxhash_rust::xxh3::xxh3_128;

/// The names that were given, of which none may come twice: a hash of each.
#[derive(Default)]
pub struct Names {
    given: HashSet<u128>,
    /// Samples that are called otherwise than by their keys.
    pub renamed: u64,
}

impl Names {
    /// The name for a key, without an extension.
    ///
    /// # Errors
    /// `Unsupported` if another sample has it.
    pub fn give(&mut self, key: &str) -> Result<String> {
        let name = name_of(key);
        if !self.given.insert(xxh3_128(name.as_bytes())) {
            let message = format!("another sample is called {name} too, and an archive tells samples by their names");
            return Err(Error::new(ErrorKind::Unsupported, message).with_remedy(
                "rename one of the two, or list each once; dots in file names are packed as underscores",
            ));
        }
        self.renamed += u64::from(name != key);
        Ok(name)
    }
}

/// A key as WebDataset has them: up to the first dot of the last part, so that a dot there becomes an underscore; and
/// below the folder that an archive is unpacked in.
fn name_of(key: &str) -> String {
    let is_part = |part: &&str| !part.is_empty() && *part != ".";
    let safe = |part| if part == ".." { Cow::Borrowed("__") } else { Cow::Borrowed(part) };
    let mut parts: Vec<Cow<'_, str>> = key.split('/').filter(is_part).map(safe).collect();
    match parts.last_mut() {
        Some(last) if last.contains('.') => *last = Cow::Owned(last.replace('.', "_")),
        Some(_) => {}
        None => parts.push(Cow::Borrowed("_")),
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_names_that_every_reader_takes_for_the_key() {
        for (key, name) in [
            ("class0/00001", "class0/00001"),
            ("v1.0/photo.final", "v1.0/photo_final"),
            ("/abs//a", "abs/a"),
            ("../up/a", "__/up/a"),
            ("./a", "a"),
            ("a/..", "a/__"),
            (".hidden", "_hidden"),
            ("", "_"),
            ("/", "_"),
        ] {
            assert_eq!(name_of(key), name, "{key}");
        }
    }

    #[test]
    fn no_name_is_given_twice() {
        let mut names = Names::default();
        names.give("a/b.c").unwrap();
        names.give("a/b").unwrap();
        let error = names.give("a/b_c").unwrap_err();
        assert!(error.to_string().contains("a/b_c") && error.remedy().is_some(), "{error}");
        assert_eq!(names.renamed, 1);
    }
}
