//! The eight ways in which a camera may have stored a picture.

/// How a stored image must be turned to be seen upright: the eight values of Exif tag 0x0112
/// (CIPA DC-008, 4.6.5). The default is 1, as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Orientation(u8);

impl Default for Orientation {
    fn default() -> Self {
        Self::AS_STORED
    }
}

impl Orientation {
    /// The stored image is upright.
    pub const AS_STORED: Self = Self(1);

    /// The orientation of an Exif value. Values outside 1 to 8 are not defined and mean 1.
    pub const fn from_exif(value: u16) -> Self {
        if value >= 1 && value <= 8 { Self(value as u8) } else { Self::AS_STORED }
    }

    /// The Exif value, 1 to 8.
    pub const fn exif(self) -> u8 {
        self.0
    }

    /// Whether the upright image's rows are columns of the stored one.
    pub const fn transposes(self) -> bool {
        self.0 >= 5
    }

    /// Whether the stored columns run against the upright axis that they become.
    pub(crate) const fn mirrors_x(self) -> bool {
        matches!(self.0, 2 | 3 | 7 | 8)
    }

    /// Whether the stored rows run against the upright axis that they become.
    pub(crate) const fn mirrors_y(self) -> bool {
        matches!(self.0, 3 | 4 | 6 | 7)
    }
}
