//! HAND over: tensors, labels, keys.
//!
//! A [`Batch`] lies on the host or on a CUDA device, as its [`device`](Batch::device) says. Labels, keys and sample
//! numbers are on the host either way.
//!
//! # On the host
//!
//! [`Batch::images`] is the tensor: it is complete, and nobody writes it until the batch is dropped.
//!
//! # Several views
//!
//! A loader with several [`views`](crate::LoaderBuilder::views) of a sample makes a tensor for each of their groups,
//! `[views * samples, ..]` with view 0 of every sample first: [`Batch::group`]. [`Batch::view`] is one of them,
//! `[samples, ..]`. Both lie where they were made; labels, keys and sample numbers are as many as samples. What takes no
//! group, such as [`Batch::images`], takes the first one.
//!
//! # On a device
//!
//! The host is handed the batch while kernels may still be writing its tensor. What orders the device is events, and
//! no thread waits for another:
//!
//! ```text
//! slot's stream      ... decode -> resize -> ready       wait -> next round's decode -> ..
//!                                              |           ^
//! batch.on(&stream)                            v           |
//! consumer's stream                     ... wait -> reads -+ (recorded when the batch is dropped)
//! ```
//!
//! - [`Batch::on`] makes the consumer's stream wait for the tensor. What that stream is given afterwards sees all of it.
//! - Dropping the batch, from any thread, also while those reads still run, records where the stream is. The next
//!   round of the slot waits for that on the device, before it writes the tensor again.
//! - So a consumer enqueues its work on a stream, drops the batch, and goes on. Only memory that leaves the pool
//!   ([`Batch::into_tensor`]) outlives the batch.
//!
//! ```no_run
//! use cudarc::driver::{CudaContext, PushKernelArg};
//! use forebay::device::Device;
//! use forebay::Loader;
//!
//! # fn step(images: cudarc::driver::CudaView<'_, f32>) {}
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let stream = CudaContext::new(0)?.new_stream()?;
//! let mut loader = Loader::open("data/train").build()?;
//! for batch in loader.epoch(0) {
//!     let batch = batch?;
//!     let images = batch.on(&stream)?;
//!     let labels = batch.labels_on(&stream)?;
//!     if let Some(images) = images.view::<f32>() {
//!         step(images); // enqueues kernels on `stream`, and waits for nothing
//!     }
//! } // the batch is dropped while they run
//! # Ok(())
//! # }
//! ```
//!
//! Others than cudarc get the tensor by [`Batch::into_dlpack`] (PyTorch, JAX, CuPy, TVM), or as a pointer and an
//! event ([`Batch::raw`]).

mod cuda;
mod digest;
pub mod dlpack;
mod owned;
mod tensor;
mod verdict;

pub use cuda::{CudaTensor, RawTensor};
pub use digest::Digest;
pub use owned::OwnedTensor;
pub use tensor::{Element, Image, Tensor};
pub(crate) use verdict::Delivered;
pub use verdict::{BadSample, Replacement, Verdict};

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tensor::{Form, HostBytes};

use crate::device::Device;
use crate::error::{Error, ErrorKind, Result};
use crate::loader::{Filled, State};
use crate::plan::Augment;

/// One batch: images, labels, keys and sample numbers, in the epoch's order.
///
/// It owns its slot of the loader's memory; dropping it, on any thread, gives the slot back to be
/// filled again. Hold no more batches at once than the loader has slots less one, or it starves.
pub struct Batch {
    filled: Filled,
    state: State,
    /// How many batches the consumer holds.
    held: Arc<AtomicUsize>,
}

impl Batch {
    pub(crate) fn new(filled: Filled, state: State, held: &Arc<AtomicUsize>) -> Self {
        held.fetch_add(1, Ordering::Relaxed);
        Self { filled, state, held: Arc::clone(held) }
    }

    /// The number of samples: the batch size, or fewer in a partial last batch and where bad ones were
    /// [skipped](crate::OnError::Skip).
    pub fn len(&self) -> usize {
        self.samples().len()
    }

    /// Whether it holds no sample: all of them were skipped.
    pub fn is_empty(&self) -> bool {
        self.samples().is_empty()
    }

    /// The epoch it belongs to.
    pub fn epoch(&self) -> u64 {
        self.filled.tray.step.epoch()
    }

    /// Its number within the epoch, from 0. The batches of all ranks at one step have the same.
    pub fn step(&self) -> u64 {
        self.filled.tray.step.number()
    }

    /// Where the first of the samples that it was to hold stands in the epoch's order; the others follow. The batches of
    /// all ranks at one step follow each other too, by rank.
    pub fn position(&self) -> u64 {
        self.filled.tray.step.first()
    }

    /// The place of each of its samples in the epoch's order, from [`position`](Self::position) on. A sample that stands in
    /// for a bad one has the place of that; places of samples that were skipped are missing.
    pub fn positions(&self) -> impl ExactSizeIterator<Item = u64> + '_ {
        (0..self.len()).map(|index| self.position() + self.place(index) as u64)
    }

    /// What became of each of the samples that it was to hold, in order: as many as it holds, and those that were skipped.
    pub fn verdicts(&self) -> impl ExactSizeIterator<Item = Verdict<'_>> + '_ {
        let Filled { tray, delivered, .. } = &self.filled;
        tray.samples.iter().enumerate().map(move |(place, &sample)| {
            let bad = delivered.as_ref().and_then(|delivered| delivered.bad_at(place));
            match bad.map(|bad| (bad, &bad.replacement)) {
                None => Verdict::Delivered { sample },
                Some((bad, Some(by))) => Verdict::Replaced { bad, by },
                Some((bad, None)) => Verdict::Skipped { bad },
            }
        })
    }

    /// How many of its samples, at its end, were delivered in this epoch before, and fill it up here
    /// ([`LastBatch::Pad`](crate::order::LastBatch::Pad)). A metric over every sample leaves them out.
    pub fn repeats(&self) -> usize {
        let repeats = self.filled.tray.step.repeats() as usize;
        let first = self.filled.tray.samples.len() - repeats;
        match &self.filled.delivered {
            None => repeats,
            Some(delivered) => delivered.places.iter().filter(|&&place| place >= first).count(),
        }
    }

    /// How far the run has come with this batch: a run that is resumed there begins with the batch after it.
    pub fn state(&self) -> State {
        self.state
    }

    /// Where its images lie.
    pub fn device(&self) -> Device {
        self.filled.slot.output().map_or(Device::Host, |output| Device::Cuda(output.gpu().ordinal()))
    }

    /// The images as one tensor in host memory, of several groups of views those of the first; `None` where every image
    /// has its own size (`Geometry::None`), and where they lie on a device.
    pub fn images(&self) -> Option<Tensor<'_>> {
        self.group(0)
    }

    /// The images of a group of views as one tensor in host memory: `[views * len, ..]`, view behind view. `None` as for
    /// [`images`](Self::images).
    ///
    /// # Panics
    ///
    /// If `group` is not below [`groups`](Self::groups).
    pub fn group(&self, group: usize) -> Option<Tensor<'_>> {
        match self.device() {
            Device::Host => Some(Tensor::new(self.form(group)?, self.bytes_of(group))),
            _ => None,
        }
    }

    /// One view of every sample as one tensor in host memory: `[len, ..]`. `None` as for [`images`](Self::images).
    ///
    /// # Panics
    ///
    /// If `group` is not below [`groups`](Self::groups), or `view` not below its [`views`](Self::views).
    pub fn view(&self, group: usize, view: usize) -> Option<Tensor<'_>> {
        Some(self.group(group)?.nth(view, self.views(group)))
    }

    /// Groups of views: one, unless the loader was told of [several](crate::LoaderBuilder::views).
    pub fn groups(&self) -> usize {
        self.filled.tray.views.groups().len()
    }

    /// Views of each sample in a group.
    ///
    /// # Panics
    ///
    /// If `group` is not below [`groups`](Self::groups).
    pub fn views(&self, group: usize) -> usize {
        self.filled.tray.views.groups()[group].count
    }

    /// What the views of a group were made by.
    ///
    /// # Panics
    ///
    /// If `group` is not below [`groups`](Self::groups).
    pub fn augment(&self, group: usize) -> &Augment {
        &self.filled.tray.views.groups()[group].augment
    }

    /// One image in host memory, of several views the first; `None` where they lie on a device.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`len`](Self::len).
    pub fn image(&self, index: usize) -> Option<Image<'_>> {
        let bytes = self.filled.slot.sample(index);
        (self.device() == Device::Host).then(|| self.image_of(0, index, bytes))
    }

    /// The images in host memory, wherever they lie: copied where that is a device, after waiting for them. For
    /// looking at them; training reads them where they are.
    ///
    /// # Errors
    ///
    /// `DeviceLost` and the like.
    pub fn to_host(&self) -> Result<HostImages<'_>> {
        let copy = match (self.filled.slot.output(), self.form(0)) {
            (Some(output), Some(_)) => {
                let mut copy = HostBytes::zeroed(self.filled.slot.len_bytes());
                let groups = (0..self.groups()).map(|group| self.filled.slot.group(group));
                output.copy_to_host(groups, copy.as_mut_slice())?;
                Some(copy)
            }
            (Some(_), None) => return Err(no_tensor()),
            (None, _) => None,
        };
        Ok(HostImages { batch: self, copy })
    }

    /// The labels, [`UNLABELLED`](crate::source::UNLABELLED) where a sample has none.
    pub fn labels(&self) -> &[i64] {
        self.filled.delivered.as_ref().map_or(&self.filled.tray.labels, |delivered| &delivered.labels)
    }

    /// The samples' numbers within the source.
    pub fn samples(&self) -> &[u64] {
        self.filled.delivered.as_ref().map_or(&self.filled.tray.samples, |delivered| &delivered.samples)
    }

    /// Which data set of a [mixture](crate::Loader::mixture) one sample is from, by its place among them; 0 where there is
    /// only one.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`len`](Self::len).
    pub fn part(&self, index: usize) -> usize {
        self.filled.tray.part_of(self.samples()[index])
    }

    /// The key of one sample: its name within the data set.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`len`](Self::len).
    pub fn key(&self, index: usize) -> &str {
        let place = self.place(index);
        let bad = self.filled.delivered.as_ref().and_then(|delivered| delivered.bad_at(place));
        let by = bad.and_then(|bad| bad.replacement.as_ref());
        by.map_or_else(|| self.filled.tray.key(place), |by| &by.key)
    }

    /// Which of the samples that it was to hold stands, or is replaced, at an index.
    fn place(&self, index: usize) -> usize {
        self.filled.delivered.as_ref().map_or(index, |delivered| delivered.places[index])
    }

    fn form(&self, group: usize) -> Option<Form> {
        let (augment, images) = (self.augment(group), self.views(group) * self.len());
        let [a, b, c] = augment.output_shape()?;
        Some(Form { shape: [images, a, b, c], dtype: augment.dtype(), layout: augment.layout() })
    }

    /// The host memory of a group of views.
    fn bytes_of(&self, group: usize) -> &[u8] {
        &self.filled.slot.all()[self.filled.slot.group(group)]
    }

    fn image_of<'a>(&self, group: usize, index: usize, bytes: &'a [u8]) -> Image<'a> {
        let size = self.filled.tray.size(group, self.place(index));
        Image { height: size.height, width: size.width, bytes }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.held.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The images of a batch in host memory, wherever the batch lies. See [`Batch::to_host`].
pub struct HostImages<'a> {
    batch: &'a Batch,
    /// Those of a device.
    copy: Option<HostBytes>,
}

impl HostImages<'_> {
    /// As one tensor, of several groups of views that of the first; `None` where every image has its own size.
    pub fn tensor(&self) -> Option<Tensor<'_>> {
        self.group(0)
    }

    /// The tensor of a group of views, as [`Batch::group`].
    ///
    /// # Panics
    ///
    /// If there is no such group.
    pub fn group(&self, group: usize) -> Option<Tensor<'_>> {
        let form = self.batch.form(group)?;
        Some(Tensor::new(form, &self.bytes()[self.batch.filled.slot.group(group)]))
    }

    /// The tensor of a view, as [`Batch::view`].
    ///
    /// # Panics
    ///
    /// If there is no such group, or no such view in it.
    pub fn view(&self, group: usize, view: usize) -> Option<Tensor<'_>> {
        Some(self.group(group)?.nth(view, self.batch.views(group)))
    }

    /// One image, of several views the first.
    ///
    /// # Panics
    ///
    /// If `index` is not below the batch's [`len`](Batch::len).
    pub fn image(&self, index: usize) -> Image<'_> {
        let mut images = self.images(index);
        images.next().unwrap_or_else(|| unreachable!("a sample has a view"))
    }

    /// Every view of a sample: group by group, in the order of their numbers.
    ///
    /// # Panics
    ///
    /// If `index` is not below the batch's [`len`](Batch::len).
    pub fn images(&self, index: usize) -> impl Iterator<Item = Image<'_>> {
        let groups = (0..self.batch.groups()).flat_map(|group| std::iter::repeat_n(group, self.batch.views(group)));
        let places = self.batch.filled.slot.places(index);
        groups.zip(places).map(move |(group, place)| self.batch.image_of(group, index, &self.bytes()[place]))
    }

    fn bytes(&self) -> &[u8] {
        self.copy.as_ref().map_or_else(|| self.batch.filled.slot.all(), HostBytes::as_slice)
    }
}

/// Why something that takes one tensor does not take this batch.
fn no_tensor() -> Error {
    Error::new(ErrorKind::Unsupported, "every image of the batch has its own size, so they are no one tensor")
        .with_remedy("load with a geometry that gives all images one size")
}
