//! Formats that a library decodes as a whole: PNG, WebP and the JPEG processes beside baseline.
