//! The JPEG format itself: header, tables, entropy, inverse DCT, upsampling, colour. No I/O.
