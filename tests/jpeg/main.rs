//! The JPEG decoder: libjpeg-turbo's pixels, whole, by regions, scaled, and of hostile bytes.

mod faults;
mod index;
mod index_faults;
mod index_support;
mod parity;
mod scaled;
mod support;
