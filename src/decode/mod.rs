//! PIXELS: encoded bytes to rows, whichever decoder the format needs.
