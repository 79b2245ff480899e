//! The columns of a sidecar, in the order in which they lie in the file.

use std::collections::HashMap;

use arrow_ipc::{Endianness, Type};
use arrow_schema::{DataType, Field, Schema};

/// Of what is described in the [module's](super) documentation. Raised when a column changes its meaning.
pub(super) const FORMAT_VERSION: u32 = 1;

/// Rows of every record batch but the last. The columns of one batch are a contiguous 70 KB or so, what
/// the kernel maps for one or two page faults: a look-up touches little, and a file needs no other index.
pub(super) const ROWS_PER_BATCH: u64 = 512;

/// The most bytes of entry points of one sample, so that a batch's 32-bit offsets always suffice.
pub(super) const ENTRIES_MAX_BYTES: usize = 2 << 20;

/// A column, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "columns between two others are reached by counting from the first")]
pub(super) enum Column {
    Key,
    Path,
    Label,
    Offset,
    Length,
    ModifiedSeconds,
    ModifiedNanoseconds,
    Flags,
    ListingChecksum,
    Format,
    Width,
    Height,
    Orientation,
    Components,
    Colour,
    Sampling,
    Slots,
    RestartInterval,
    ScanOffset,
    ScanBytes,
    QuantRow,
    HuffmanRow,
    DataChecksum,
    RecordChecksum,
    Cause,
    Quant,
    Huffman,
    Entries,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    U8,
    U16,
    U32,
    U64,
    I64,
    Utf8,
    Binary,
}

/// Name and kind of every column. All may hold nulls, for the convenience of those who read the file with
/// something else: what is null is stored as 0 or as no bytes too, which is what this crate reads.
pub(super) const COLUMNS: [(&str, Kind); 28] = [
    ("key", Kind::Utf8),
    ("path", Kind::Binary),
    ("label", Kind::I64),
    ("offset", Kind::U64),
    ("length", Kind::U64),
    ("modified_seconds", Kind::I64),
    ("modified_nanoseconds", Kind::U32),
    ("flags", Kind::U8),
    ("listing_checksum", Kind::U64),
    ("format", Kind::U8),
    ("width", Kind::U32),
    ("height", Kind::U32),
    ("orientation", Kind::U8),
    ("components", Kind::U8),
    ("colour", Kind::U8),
    ("sampling", Kind::U32),
    ("slots", Kind::U32),
    ("restart_interval", Kind::U16),
    ("scan_offset", Kind::U64),
    ("scan_bytes", Kind::U64),
    ("quant_row", Kind::U32),
    ("huffman_row", Kind::U32),
    ("data_checksum", Kind::U64),
    ("record_checksum", Kind::U64),
    ("cause", Kind::Utf8),
    ("quant", Kind::Binary),
    ("huffman", Kind::Binary),
    ("entries", Kind::Binary),
];

impl Kind {
    /// Bytes of a value, or `None` where they vary.
    pub(super) fn width_bytes(self) -> Option<usize> {
        match self {
            Self::U8 => Some(1),
            Self::U16 => Some(2),
            Self::U32 => Some(4),
            Self::U64 | Self::I64 => Some(8),
            Self::Utf8 | Self::Binary => None,
        }
    }

    fn data_type(self) -> DataType {
        match self {
            Self::U8 => DataType::UInt8,
            Self::U16 => DataType::UInt16,
            Self::U32 => DataType::UInt32,
            Self::U64 => DataType::UInt64,
            Self::I64 => DataType::Int64,
            Self::Utf8 => DataType::Utf8,
            Self::Binary => DataType::Binary,
        }
    }

    fn is(self, field: &arrow_ipc::Field<'_>) -> bool {
        match (self, field.type_type()) {
            (Self::Utf8, Type::Utf8) | (Self::Binary, Type::Binary) => true,
            (_, Type::Int) => {
                let bits = self.width_bytes().map(|bytes| 8 * bytes as i32);
                let is_signed = self == Self::I64;
                field.type_as_int().is_some_and(|int| Some(int.bitWidth()) == bits && int.is_signed() == is_signed)
            }
            _ => false,
        }
    }
}

/// The schema with this metadata.
pub(super) fn schema(metadata: [(String, String); 2]) -> Schema {
    let fields: Vec<_> = COLUMNS.iter().map(|(name, kind)| Field::new(*name, kind.data_type(), true)).collect();
    Schema::new(fields).with_metadata(HashMap::from(metadata))
}

/// Whether a schema has exactly these columns.
pub(super) fn is_known(schema: &arrow_ipc::Schema<'_>) -> bool {
    let Some(fields) = schema.fields() else { return false };
    let mut pairs = fields.iter().zip(COLUMNS);
    schema.endianness() == Endianness::Little
        && fields.len() == COLUMNS.len()
        && pairs
            .all(|(field, (name, kind))| field.name() == Some(name) && kind.is(&field) && field.dictionary().is_none())
}
