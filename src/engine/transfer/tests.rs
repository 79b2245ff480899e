use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use proptest::prelude::*;

use super::*;
use crate::memory::Arena;

const LEN: usize = 2500;

/// A file of `LEN` bytes whose reads are simulated: `Direct::Preferred` gives it an alignment.
struct Bench {
    common: Common,
    file: Arc<OpenFile>,
    bytes: Vec<u8>,
    arena: Arena,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new(direct: Direct) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sample");
        let bytes: Vec<u8> = (0..LEN).map(|at| (at % 251) as u8 + 1).collect();
        fs::write(&path, &bytes).unwrap();
        let common = Common {
            direct,
            read_bytes_max: 1 << 30,
            align_bytes_min: 1,
            fallbacks: Default::default(),
            polling: Default::default(),
            counters: Default::default(),
            again: Default::default(),
            abandoned: Default::default(),
        };
        let file = common.open(CString::new(path.as_os_str().as_bytes()).unwrap()).unwrap();
        Self { common, file, bytes, arena: Arena::new(1 << 20).unwrap(), _folder: folder }
    }

    fn begin(&self, offset: u64, len: usize) -> Result<Transfer> {
        let mut region = self.arena.alloc(1 << 16).unwrap().unwrap();
        region.as_mut_slice().fill(0);
        Transfer::new(Arc::clone(&self.file), offset, len, region)
    }

    /// Answers every request as `answer` says: at most so many bytes, or an error.
    fn run(
        &self,
        mut transfer: Transfer,
        mut answer: impl FnMut(Request, bool) -> nix::Result<usize>,
    ) -> Result<Region> {
        for _ in 0..10_000 {
            let request = transfer.request(&self.common);
            let buffered = transfer.buffered;
            if !buffered {
                let align = self.file.align_bytes();
                assert!(request.offset.is_multiple_of(align as u64) && request.at.is_multiple_of(align));
                assert_eq!(request.len_bytes % align, 0);
            }
            let answer = answer(request, buffered).map(|at_most| {
                let rest = &self.bytes[(request.offset as usize).min(LEN)..];
                let read = at_most.min(rest.len()).min(request.len_bytes);
                transfer.ends(request).1[..read].copy_from_slice(&rest[..read]);
                read
            });
            match transfer.advance(request, answer, &self.common) {
                Step::Again(next) => transfer = next,
                Step::Done(result) => return result,
            }
        }
        panic!("the read does not end");
    }
}

/// Both ways of reading; around the page cache only where the file system of the test allows it.
fn benches() -> Vec<Bench> {
    let direct = Bench::new(Direct::Preferred);
    assert!(direct.file.is_direct() || !direct.common.fallbacks.snapshot().is_empty());
    vec![Bench::new(Direct::Off), direct]
}

/// Fault row 2: whatever the first answer, the read continues from the byte reached.
#[test]
fn fault_02_a_short_read_continues_at_every_split_point() {
    for bench in benches() {
        for split in 1..LEN {
            let mut first = true;
            let region = bench
                .run(bench.begin(7, LEN - 7).unwrap(), |_, _| Ok(if mem_take(&mut first) { split } else { LEN }))
                .unwrap();
            assert!(region.as_slice() == &bench.bytes[7..], "split at {split}");
        }
    }
}

fn mem_take(first: &mut bool) -> bool {
    std::mem::replace(first, false)
}

#[test]
fn fault_02_interruptions_continue_and_end_if_nothing_else_comes() {
    for bench in benches() {
        let mut calls = 0;
        let region = bench.run(bench.begin(0, LEN).unwrap(), |_, _| {
            calls += 1;
            match calls % 3 {
                0 => Ok(300),
                1 => Err(Errno::EINTR),
                _ => Err(Errno::EAGAIN),
            }
        });
        // 300 is less than an alignment: a direct read gets nowhere and asks the page cache.
        assert!(region.unwrap().as_slice() == bench.bytes);
        let error = bench.run(bench.begin(0, LEN).unwrap(), |_, _| Err(Errno::EINTR)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
    }
}

/// Fault row 1: transient and sticky, on each request of a read.
#[test]
fn fault_01_eio_is_retried_once_and_then_named() {
    for bench in benches() {
        for failing in 0..5 {
            let mut calls = 0..;
            let region = bench
                .run(bench.begin(0, LEN).unwrap(), |_, _| {
                    if calls.next() == Some(failing) { Err(Errno::EIO) } else { Ok(512) }
                })
                .unwrap();
            assert!(region.as_slice() == bench.bytes);
        }
        let (mut calls, mut last_buffered) = (0, false);
        let error = bench.run(bench.begin(100, 200).unwrap(), |_, buffered| {
            (calls, last_buffered) = (calls + 1, buffered);
            Err(Errno::EIO)
        });
        assert!(calls == 2 && last_buffered, "one retry, through the page cache");
        let message = error.unwrap_err().to_string();
        for part in ["sample", "200 bytes at offset 100", "os error 5"] {
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(bench.common.counters.retries.load(Ordering::Relaxed), 5 + 1);
    }
}

/// Fault row 6, at the read: the file system took O_DIRECT and refuses what is read with it.
#[test]
fn fault_06_direct_reads_refused_go_through_the_page_cache() {
    let bench = Bench::new(Direct::Preferred);
    if !bench.file.is_direct() {
        eprintln!("skipped: no O_DIRECT here");
        return;
    }
    let refusing = |_, buffered| if buffered { Ok(LEN) } else { Err(Errno::EINVAL) };
    for _ in 0..2 {
        let region = bench.run(bench.begin(0, LEN).unwrap(), refusing).unwrap();
        assert!(region.as_slice() == bench.bytes);
    }
    assert!(!bench.file.is_direct());
    let fallbacks = bench.common.fallbacks.snapshot();
    assert_eq!((fallbacks.len(), fallbacks[0].what, fallbacks[0].count), (1, "O_DIRECT", 1));

    let bench = Bench::new(Direct::Required);
    let error = bench.run(bench.begin(0, LEN).unwrap(), refusing).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("sample") && error.remedy().is_some(), "{error}");
}

#[test]
fn fault_04_a_range_beyond_the_file_is_truncated_before_any_read() {
    for bench in benches() {
        for (offset, len) in [(0, LEN + 1), (LEN as u64, 1), (u64::MAX, 1), (u64::MAX - 1, 2)] {
            assert_eq!(bench.begin(offset, len).unwrap_err().kind(), ErrorKind::Truncated);
        }
    }
}

proptest! {
    /// Any mixture of short reads and interruptions gives the same bytes, with no byte of its own.
    #[test]
    fn fault_02_any_answers_give_the_same_bytes(
        offset in 0..LEN,
        len in 1..LEN,
        answers in proptest::collection::vec(prop_oneof![Just(0_usize), 1..LEN], 1..20),
    ) {
        let len = len.min(LEN - offset);
        for bench in benches() {
            let mut answers = answers.iter();
            let result = bench.run(bench.begin(offset as u64, len).unwrap(), |_, _| match answers.next() {
                Some(0) => Err(Errno::EINTR),
                Some(at_most) => Ok(*at_most),
                None => Ok(LEN),
            });
            prop_assert!(result.unwrap().as_slice() == &bench.bytes[offset..offset + len]);
        }
    }

    /// Fault row 7.
    #[test]
    fn fault_07_a_span_is_the_smallest_that_covers(shift in 0_u32..21, offset in 0_u64..1 << 50, len in 1_usize..1 << 40) {
        let align = 1_usize << shift;
        let span = Span::new(align, offset, len);
        prop_assert!(span.start.is_multiple_of(align as u64) && span.len_bytes.is_multiple_of(align));
        prop_assert_eq!(span.start + span.skip as u64, offset);
        prop_assert!(span.skip < align && span.len_bytes - (span.skip + len) < align);
    }

    #[test]
    fn no_span_overflows(align in 1_usize..1 << 21, offset: u64, len: usize) {
        let span = Span::new(align, offset, len);
        prop_assert!(span.len_bytes >= len);
    }
}

/// Bytes that were asked of the file's device again, since the last call.
fn asked_again(bench: &Bench) -> u64 {
    let bytes = std::mem::take(&mut *crate::report::lock(&bench.common.again.bytes));
    assert!(bytes.iter().all(|(device, _)| *device == bench.file.identity().inode.0) && bytes.len() <= 1);
    bytes.iter().map(|(_, len_bytes)| len_bytes).sum()
}

#[test]
fn what_is_asked_again_is_counted_and_nothing_else() {
    let bench = Bench::new(Direct::Off);
    let mut answers = [Ok(1000), Err(Errno::EIO), Err(Errno::EINTR), Ok(500), Ok(1000)].into_iter();
    bench.run(bench.begin(0, LEN).unwrap(), |_, _| answers.next().unwrap()).unwrap();
    assert_eq!(asked_again(&bench), 3 * 1500 + 1000);
    bench.run(bench.begin(0, LEN).unwrap(), |_, _| Ok(LEN)).unwrap();
    assert_eq!(asked_again(&bench), 0, "it came at once");
    // A read in several requests asks for nothing twice.
    let mut bench = Bench::new(Direct::Off);
    bench.common.read_bytes_max = 700;
    bench.run(bench.begin(0, LEN).unwrap(), |_, _| Ok(LEN)).unwrap();
    assert_eq!(asked_again(&bench), 0);
    bench.run(bench.begin(0, LEN).unwrap(), |request, _| Ok(if request.at == 700 { 1 } else { LEN })).unwrap();
    assert_eq!(asked_again(&bench), 699);
}
