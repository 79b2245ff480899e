//! What a tensor is, wherever it lies, and tensors in host memory.

use std::ops::Range;

use half::{bf16, f16};

use crate::plan::{DType, Layout};

/// One image of a batch, in host memory.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
    /// The pixels: three channels (R, G, B) in the batch's layout and type, tightly packed.
    pub bytes: &'a [u8],
}

/// All images of a batch whose images have one size, or some of them, in host memory.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    /// `[images, 3, height, width]` for NCHW, `[images, height, width, 3]` for NHWC.
    pub shape: [usize; 4],
    /// The type of an element.
    pub dtype: DType,
    /// The order of the dimensions.
    pub layout: Layout,
    /// The elements, row-major, tightly packed, in the machine's byte order.
    pub bytes: &'a [u8],
}

impl<'a> Tensor<'a> {
    pub(super) fn new(Form { shape, dtype, layout }: Form, bytes: &'a [u8]) -> Self {
        Self { shape, dtype, layout, bytes }
    }

    /// Some of its images, where they follow each other.
    fn part(&self, images: Range<usize>) -> Self {
        let [count, a, b, c] = self.shape;
        let image_bytes = self.bytes.len() / count.max(1);
        let bytes = &self.bytes[images.start * image_bytes..images.end * image_bytes];
        Self { shape: [images.len(), a, b, c], bytes, ..*self }
    }

    /// One of several tensors of as many images that it is made of, such as a view of a group.
    ///
    /// # Panics
    /// If there is no such part.
    pub(super) fn nth(&self, number: usize, parts: usize) -> Self {
        assert!(number < parts, "view {number} of {parts}");
        let images = self.shape[0] / parts;
        self.part(number * images..(number + 1) * images)
    }

    /// The bytes of one image.
    ///
    /// # Panics
    /// If it has no such image.
    pub fn image(&self, index: usize) -> &'a [u8] {
        self.part(index..index + 1).bytes
    }

    /// The elements, if they are of type f32.
    pub fn as_f32(&self) -> Option<&'a [f32]> {
        self.elements()
    }

    /// The elements, if they are of type f16.
    pub fn as_f16(&self) -> Option<&'a [f16]> {
        self.elements()
    }

    /// The elements, if they are of type bf16.
    pub fn as_bf16(&self) -> Option<&'a [bf16]> {
        self.elements()
    }

    /// The elements, if they are of type u8.
    pub fn as_u8(&self) -> Option<&'a [u8]> {
        self.elements()
    }

    fn elements<T: Element>(&self) -> Option<&'a [T]> {
        (self.dtype == T::DTYPE).then(|| bytemuck::cast_slice(self.bytes))
    }
}

/// A type that elements of a tensor can have: `u8`, `f32`, and `f16` and `bf16` of the crate `half`.
pub trait Element: bytemuck::Pod + sealed::Sealed {
    /// Its name.
    const DTYPE: DType;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! elements {
    ($($element:ty => $dtype:ident),*) => {$(
        impl sealed::Sealed for $element {}
        impl Element for $element {
            const DTYPE: DType = DType::$dtype;
        }
    )*};
}
elements!(u8 => U8, f16 => F16, bf16 => BF16, f32 => F32);

/// What there is to know of a tensor but its elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) shape: [usize; 4],
    pub(super) dtype: DType,
    pub(super) layout: Layout,
}

impl Form {
    pub(super) fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    pub(super) fn len_bytes(&self) -> usize {
        self.elements() * self.dtype.size_bytes()
    }
}

/// Bytes of host memory on an address that any element may lie on.
pub(super) struct HostBytes {
    words: Box<[u64]>,
    len_bytes: usize,
}

impl HostBytes {
    pub(super) fn zeroed(len_bytes: usize) -> Self {
        Self { words: vec![0; len_bytes.div_ceil(size_of::<u64>())].into(), len_bytes }
    }

    pub(super) fn copy_of(bytes: &[u8]) -> Self {
        let mut copy = Self::zeroed(bytes.len());
        copy.as_mut_slice().copy_from_slice(bytes);
        copy
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len_bytes]
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.len_bytes]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_had_by_their_own_type_alone() {
        let words = [1.5_f32, -2.0, 0.25];
        let form = Form { shape: [1, 3, 1, 1], dtype: DType::F32, layout: Layout::Nchw };
        let tensor = Tensor::new(form, bytemuck::cast_slice(&words));
        assert_eq!((form.elements(), form.len_bytes()), (3, 12));
        assert_eq!(tensor.as_f32(), Some(&words[..]));
        assert!(tensor.as_f16().is_none() && tensor.as_bf16().is_none() && tensor.as_u8().is_none());
    }

    #[test]
    fn copies_are_aligned_and_as_long_as_what_they_copy() {
        for len in [0, 1, 7, 8, 9, 4096] {
            let bytes: Vec<u8> = (0..len).map(|byte| byte as u8).collect();
            let copy = HostBytes::copy_of(&bytes);
            assert_eq!(copy.as_slice(), bytes);
            assert_eq!(copy.as_slice().as_ptr().addr() % 8, 0);
        }
    }
}
