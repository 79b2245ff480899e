//! From a key to the samples that have it.

use std::hash::BuildHasher;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::error::{Error, ErrorKind, Result};
use crate::source::Source;

/// A hash table of sample numbers with linear probing. It holds no keys: the source has them, and is asked.
///
/// Four bytes a slot and 1.5 slots a sample. An entry is looked at again wherever it lies on the way of a probe, so it also
/// keeps a byte of its hash: one in 256 of those looked at for nothing costs a key of the source.
pub(super) struct Keys {
    slots: Vec<u32>,
    tags: Vec<u8>,
    /// Chosen at random, so that no list of keys can be made up that all collide.
    seed: u64,
}

const FREE: u32 = u32::MAX;

/// The most slots that are passed on the way to a free one. At this load several hundred are for ever improbable, unless
/// many samples have one and the same key.
const PASSED_MAX: u32 = 1024;

impl Keys {
    /// # Errors
    /// `LimitExceeded` for 2^32 - 1 samples or more, or too little memory; those of the source's keys.
    pub fn of(source: &dyn Source) -> Result<Self> {
        let len = source.len();
        let slots = usize::try_from(len + len / 2 + 1).ok().filter(|_| len < u64::from(FREE));
        let too_many = || {
            Error::new(ErrorKind::LimitExceeded, format!("labels cannot be joined to {len} samples: too many"))
                .with_remedy("join parts of the data set, or give the process more memory")
        };
        let count = slots.ok_or_else(too_many)?;
        let (mut slots, mut tags) = (Vec::new(), Vec::new());
        slots.try_reserve_exact(count).map_err(|_| too_many())?;
        tags.try_reserve_exact(count).map_err(|_| too_many())?;
        slots.resize(count, FREE);
        tags.resize(count, 0);
        let seed = std::collections::hash_map::RandomState::new().hash_one(len);
        let mut keys = Self { slots, tags, seed };
        let mut key = String::new();
        for sample in 0..len {
            source.key(sample, &mut key)?;
            let (mut slot, tag) = keys.place(&key);
            let mut passed = 0;
            while keys.slots[slot] != FREE {
                slot = keys.behind(slot);
                passed += 1;
                if passed == PASSED_MAX {
                    return Err(too_common(&key));
                }
            }
            (keys.slots[slot], keys.tags[slot]) = (sample as u32, tag);
        }
        Ok(keys)
    }

    /// The samples that may have a key.
    pub fn candidates(&self, key: &str) -> impl Iterator<Item = u64> + use<> {
        let (mut slot, tag) = self.place(key);
        let mut found = Vec::new();
        while self.slots[slot] != FREE {
            if self.tags[slot] == tag {
                found.push(u64::from(self.slots[slot]));
            }
            slot = self.behind(slot);
        }
        found.into_iter()
    }

    /// Where to look for a key first, and what is kept of its hash.
    fn place(&self, key: &str) -> (usize, u8) {
        let hash = xxh3_64_with_seed(key.as_bytes(), self.seed);
        let slot = (u128::from(hash) * self.slots.len() as u128) >> u64::BITS;
        (slot as usize, hash as u8)
    }

    fn behind(&self, slot: usize) -> usize {
        if slot + 1 == self.slots.len() { 0 } else { slot + 1 }
    }
}

fn too_common(key: &str) -> Error {
    let message = format!("labels cannot be joined by key: hundreds of samples have the same, such as {key}");
    Error::new(ErrorKind::LimitExceeded, message)
        .with_remedy("give the samples keys of their own, as names in a tar are")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::source::Extent;

    /// So many samples, keys from their numbers.
    struct Keyed(u64, fn(u64) -> u64);

    impl Source for Keyed {
        fn len(&self) -> u64 {
            self.0
        }

        fn extent(&self, sample: u64) -> Result<Extent> {
            Ok(Extent::Object(sample))
        }

        fn object_path(&self, _object: u64, path: &mut PathBuf) -> Result<()> {
            path.clear();
            Ok(())
        }

        fn label(&self, _sample: u64) -> Result<i64> {
            Ok(0)
        }

        fn key(&self, sample: u64, key: &mut String) -> Result<()> {
            *key = (self.1)(sample).to_string();
            Ok(())
        }
    }

    #[test]
    fn every_sample_is_a_candidate_for_its_key_and_few_others_are() {
        for len in [0, 1, 2, 100, 20_000] {
            let keys = Keys::of(&Keyed(len, |sample| sample / 3)).unwrap();
            let mut others = 0;
            for sample in 0..len {
                let found: Vec<u64> = keys.candidates(&(sample / 3).to_string()).collect();
                assert!(found.contains(&sample), "{sample} of {len}: {found:?}");
                others += found.iter().filter(|other| **other / 3 != sample / 3).count();
            }
            // About a fiftieth; seeds differ from run to run.
            assert!(len < 1000 || others as u64 <= len / 4, "{others} of {len}");
        }
    }

    #[test]
    fn keys_that_everything_has_are_refused() {
        let error = Keys::of(&Keyed(5000, |_| 7)).err().unwrap();
        assert!(error.kind() == ErrorKind::LimitExceeded && error.to_string().contains('7'), "{error}");
    }
}
