//! Looks for bytes that came to the device directly where they should never be: in what the host copies there, and in
//! page-locked memory.
//!
//! Of each direct read, 32 bytes in every 512 are remembered, unless they are so plain that they may be anything: zeros, text,
//! tables. What the simulated driver shows is searched for them at every place.

use std::collections::HashMap;
use std::ffi::{c_char, c_void};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use crate::driver::{driver, report_kind};
use crate::text;

const PRINT_BYTES: usize = 32;
const STRIDE_BYTES: u64 = 512;
/// How many are remembered.
const PRINTS_MAX: usize = 1 << 20;
/// Bits that say which first words no print has.
const FILTER_BITS: usize = 1 << 22;
/// How many of a print's steps from byte to byte are to be out of the ordinary, and how many bytes differ.
const STEPS_MIN: usize = 26;
const VALUES_MIN: u32 = 22;

struct Prints {
    filter: Vec<u64>,
    by_head: HashMap<u64, ([u8; PRINT_BYTES], String)>,
}

impl Default for Prints {
    fn default() -> Self {
        Self { filter: vec![0; FILTER_BITS / 64], by_head: HashMap::new() }
    }
}

/// What is remembered, while there is a watch. No other lock is taken under this one.
fn prints() -> MutexGuard<'static, Option<Prints>> {
    static PRINTS: LazyLock<Mutex<Option<Prints>>> = LazyLock::new(Mutex::default);
    PRINTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins to watch, or ends it.
pub fn set(watches: bool) {
    let mut prints = prints();
    match watches {
        true => drop(prints.get_or_insert_default()),
        false => *prints = None,
    }
    drop(prints);
    if let Some(driver) = driver() {
        driver.watch(watches.then_some(visit));
    }
}

/// Forgets what was read, and goes on watching.
pub fn forget() {
    if let Some(prints) = prints().as_mut() {
        *prints = Prints::default();
    }
}

/// Remembers bytes that were read directly, from this place in their file.
pub fn remember(bytes: &[u8], file_offset: u64, read: &str) {
    let mut prints = prints();
    let Some(prints) = prints.as_mut() else { return };
    let first = (file_offset.next_multiple_of(STRIDE_BYTES) - file_offset) as usize;
    for at in (first..bytes.len().saturating_sub(PRINT_BYTES - 1)).step_by(STRIDE_BYTES as usize) {
        let Some(print) = bytes[at..].first_chunk::<PRINT_BYTES>().filter(|print| is_peculiar(print)) else { continue };
        if prints.by_head.len() >= PRINTS_MAX {
            return;
        }
        let head = head(print);
        prints.filter[bit(head) / 64] |= 1 << (bit(head) % 64);
        let place = || format!("{read} read directly from byte {} of its file", file_offset + at as u64);
        prints.by_head.entry(head).or_insert_with(|| (*print, place()));
    }
}

/// What the driver shows.
unsafe extern "C" fn visit(_argument: *mut c_void, what: *const c_char, bytes: *const u8, len: usize) {
    // SAFETY: a string of the driver's, and bytes that are readable for so long.
    let (what, bytes) = unsafe { (text(what), std::slice::from_raw_parts(bytes, len)) };
    let found = prints().as_ref().and_then(|prints| prints.find(bytes));
    if let Some((at, origin)) = found {
        report_kind("host-bytes", &format!("{what} has at byte {at} what {origin}"));
    }
}

impl Prints {
    fn find(&self, bytes: &[u8]) -> Option<(usize, String)> {
        let mut places = bytes.windows(PRINT_BYTES).enumerate();
        places.find_map(|(at, window)| {
            let head = head(window.first_chunk()?);
            if self.filter[bit(head) / 64] >> (bit(head) % 64) & 1 == 0 {
                return None;
            }
            let (print, origin) = self.by_head.get(&head)?;
            (window == print).then(|| (at, origin.clone()))
        })
    }
}

fn head(print: &[u8; PRINT_BYTES]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *print;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

fn bit(head: u64) -> usize {
    (head.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 42) as usize % FILTER_BITS
}

/// Whether no other bytes are likely to be the same: entropy-coded data is, headers and tables are not.
fn is_peculiar(print: &[u8; PRINT_BYTES]) -> bool {
    let steps = print.windows(2).filter(|pair| {
        let step = pair[1].wrapping_sub(pair[0]);
        !matches!(step, 0 | 1 | 16 | 255)
    });
    let mut values = [0_u64; 4];
    print.iter().for_each(|byte| values[usize::from(byte >> 6)] |= 1 << (byte & 63));
    let distinct = values.iter().map(|bits| bits.count_ones()).sum::<u32>();
    let text = print.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    steps.count() >= STEPS_MIN && distinct >= VALUES_MIN && !text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed;
        let byte = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..len).map(byte).collect()
    }

    #[test]
    fn coded_data_is_peculiar_and_tables_are_not() {
        let peculiar = |bytes: &[u8]| bytes.first_chunk().is_some_and(is_peculiar);
        let many = (1..100).filter(|seed| peculiar(&noise(*seed, PRINT_BYTES))).count();
        assert!(many > 90, "{many}");
        let counting: Vec<u8> = (0..32).collect();
        assert!(!peculiar(&[0; 32]) && !peculiar(&counting) && !peculiar(b"photos/class-0017/IMG_38290.jpeg"));
    }

    #[test]
    fn a_print_is_found_at_any_place() {
        let mut prints = Prints::default();
        let data = noise(5, 4096);
        let print = data[512..].first_chunk::<PRINT_BYTES>().unwrap();
        prints.filter[bit(head(print)) / 64] |= 1 << (bit(head(print)) % 64);
        prints.by_head.insert(head(print), (*print, "a read".into()));
        assert_eq!(prints.find(&data[3..]), Some((509, "a read".into())));
        assert_eq!(prints.find(&data[513..]), None);
        assert_eq!(prints.find(&data[..543]), None);
    }
}
