//! Which files nvJPEG is shown of which the host looks at no byte.

use super::kinds::{Kind, Kinds, Sampling};
use super::takes::tables;
use crate::source::RecordedJpeg;

/// Huffman tables of each class that baseline JPEG has room for (T.81, table B.5).
const BASELINE_SLOTS: u8 = 2;

const EOI_BYTES: u64 = 2;

/// A file in device memory that nvJPEG may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Eligible {
    /// What it is.
    pub kind: Kind,
    /// Its bytes, of which nvJPEG needs all.
    pub len_bytes: u64,
}

/// Whether nvJPEG may see a file of which no byte was looked at, by what an index says of it.
///
/// An index describes files that were decoded from end to end without a fault when it was built: every code of the
/// scan, and each restart marker in its place. The scan must be the last in the file but for one marker; what lies
/// behind the images of some cameras the index does not tell from a file that goes on. A file of extended sequential
/// JPEG is told from a baseline one only by tables that the latter has no room for; of others, which it could decode,
/// nvJPEG says so itself.
///
/// # Errors
///
/// Why the file is for another decoder.
fn takes_facts(jpeg: &RecordedJpeg<'_>, len_bytes: u64) -> Result<Eligible, &'static str> {
    let facts = &jpeg.facts;
    let header = facts.header(jpeg.quant, jpeg.huffman).map_err(|_| "an index that contradicts itself")?;
    let sampling = Sampling::of(&header)?;
    let used = header.components().len();
    if facts.slots[..used].iter().any(|&[_, dc, ac]| dc >= BASELINE_SLOTS || ac >= BASELINE_SLOTS) {
        return Err("extended sequential DCT");
    }
    tables(&header)?;
    let end = facts.scan_offset.checked_add(facts.scan_bytes).and_then(|end| end.checked_add(EOI_BYTES));
    if end != Some(len_bytes) {
        return Err("more or less behind its scan than an EOI marker");
    }
    Ok(Eligible { kind: Kind { sampling, has_restarts: facts.restart_interval > 0 }, len_bytes })
}

impl Kinds {
    /// Whether a file of so many bytes is of one of these kinds and nvJPEG may see it, by [`takes_facts`]. Any thread may
    /// ask.
    ///
    /// # Errors
    ///
    /// Why the file is for another decoder.
    pub(crate) fn takes(self, jpeg: &RecordedJpeg<'_>, len_bytes: u64) -> Result<Eligible, &'static str> {
        let eligible = takes_facts(jpeg, len_bytes)?;
        match self.contains(eligible.kind) {
            true => Ok(eligible),
            false if eligible.kind.has_restarts => Err("a restart interval"),
            false => Err("sampling factors that are not for this device"),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use jpeg_encoder::{ColorType, SamplingFactor};

    use super::super::takes::tests::encode;
    use super::*;
    use crate::jpeg::{ColourModel, Decoder, EntryPoints, Grain, Header};

    /// By what an index would say of the bytes, which `change` may falsify.
    fn by_facts(bytes: &[u8], change: impl FnOnce(&mut RecordedJpeg<'_>)) -> Result<Eligible, &'static str> {
        with_record(bytes, |record| {
            change(record);
            takes_facts(record, bytes.len() as u64)
        })
    }

    /// Hands on what an index would say of the bytes.
    pub(in super::super) fn with_record<T>(bytes: &[u8], take: impl FnOnce(&mut RecordedJpeg<'_>) -> T) -> T {
        let header = Header::parse(bytes).unwrap();
        let (mut entries, mut quant, mut huffman) = (Vec::new(), Vec::new(), Vec::new());
        let facts = Decoder::new().index(bytes, &header, Grain::default(), &mut entries).unwrap();
        header.tables.write_used(&facts.slots, &mut quant, &mut huffman);
        take(&mut RecordedJpeg { facts, entries: EntryPoints::new(&entries), quant: &quant, huffman: &huffman })
    }

    #[test]
    fn facts_alone_tell_the_kind_and_that_all_bytes_are_the_image() {
        for (factor, sampling) in [
            (SamplingFactor::R_4_4_4, Sampling::S444),
            (SamplingFactor::R_4_2_2, Sampling::S422),
            (SamplingFactor::R_4_4_0, Sampling::S440),
            (SamplingFactor::R_4_2_0, Sampling::S420),
        ] {
            for interval in [0, 3] {
                let bytes = encode(ColorType::Rgb, |encoder| {
                    encoder.set_sampling_factor(factor);
                    encoder.set_restart_interval(interval);
                });
                let kind = Kind { sampling, has_restarts: interval > 0 };
                assert_eq!(by_facts(&bytes, |_| {}), Ok(Eligible { kind, len_bytes: bytes.len() as u64 }));
            }
        }
        let grey = by_facts(&encode(ColorType::Luma, |_| {}), |_| {});
        assert_eq!(grey.map(|eligible| eligible.kind.sampling), Ok(Sampling::Grey));
        let fourth = by_facts(include_bytes!("../../../tests/fixtures/jpeg/411_33x31.jpg"), |_| {});
        assert_eq!(fourth.map(|eligible| eligible.kind.sampling), Ok(Sampling::S411));
    }

    #[test]
    fn what_facts_leave_open_is_refused() {
        let bytes = encode(ColorType::Rgb, |encoder| encoder.set_sampling_factor(SamplingFactor::R_4_2_0));
        let behind = Err("more or less behind its scan than an EOI marker");
        assert_eq!(by_facts(&[&bytes[..], &[0]].concat(), |_| {}), behind);
        assert_eq!(by_facts(&bytes[..bytes.len() - 2], |_| {}), behind);
        assert_eq!(by_facts(&[&bytes[..bytes.len() - 2], &[0xFF, 0xD7, 0xFF, 0xD9]].concat(), |_| {}), behind);
        // A hostile index.
        assert_eq!(by_facts(&bytes, |record| record.facts.scan_offset = u64::MAX), contradiction());
        assert_eq!(by_facts(&bytes, |record| record.facts.sampling[1] = (0, 0)), contradiction());
        assert_eq!(by_facts(&bytes, |record| record.huffman = &[0, 1]), contradiction());
        assert_eq!(by_facts(&bytes, |record| record.huffman = &[]), Err("a Huffman table is missing"));
        assert_eq!(
            by_facts(&bytes, |record| record.quant = &[]),
            Err("a quantisation table that is missing or not of 8 bits")
        );
        assert_eq!(by_facts(&bytes, |record| record.facts.slots[1][2] = 2), Err("extended sequential DCT"));
        let colours = "components that are red, green and blue";
        assert_eq!(by_facts(&bytes, |record| record.facts.colour = ColourModel::Rgb), Err(colours));
        let odd = |record: &mut RecordedJpeg<'_>| record.facts.sampling = [(2, 2), (2, 1), (1, 1)];
        assert_eq!(by_facts(&bytes, odd), Err("sampling factors without a name"));
    }

    #[test]
    fn kinds_that_a_device_does_not_take_are_refused() {
        let kind = Kind { sampling: Sampling::S420, has_restarts: false };
        let asked = |interval, kinds: Kinds| {
            let bytes = encode(ColorType::Rgb, |encoder| {
                encoder.set_sampling_factor(SamplingFactor::R_4_2_0);
                encoder.set_restart_interval(interval);
            });
            with_record(&bytes, |record| kinds.takes(record, bytes.len() as u64).map(|eligible| eligible.kind))
        };
        assert_eq!(asked(0, Kinds::from_iter([kind])), Ok(kind));
        assert_eq!(asked(4, Kinds::from_iter([kind])), Err("a restart interval"));
        assert_eq!(asked(0, Kinds::default()), Err("sampling factors that are not for this device"));
    }

    fn contradiction() -> Result<Eligible, &'static str> {
        Err("an index that contradicts itself")
    }
}
