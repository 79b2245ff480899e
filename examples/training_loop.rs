//! A training loop that is never kept waiting, on a CUDA device or on the host.
//!
//! ```sh
//! cargo run --release -- datagen photos --count 512         # or a data set of your own
//! cargo run --release -- index photos
//! cargo run --release --example training_loop -- photos auto
//! ```
//!
//! The step is yours to write: here it copies the labels and one image a batch, in place of a forward and a backward pass.

use std::sync::Arc;

use anyhow::{Context, bail};
use cudarc::driver::{CudaContext, CudaStream};
use forebay::device::{Device, DeviceChoice};
use forebay::{Augment, Batch, Loader};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let Some(data_set) = arguments.next() else { bail!("usage: training_loop DATASET [host|cuda:N|auto]") };
    let device: DeviceChoice = arguments.next().as_deref().unwrap_or("auto").parse()?;

    let mut loader = Loader::open(data_set)
        .batch_size(64)
        .augment(Augment::imagenet_train(224).build()?)
        .seed(7)
        .device(device)
        .build()?;
    // The stream that the network runs on. cudarc's context of a device is the one that the loader's memory is in.
    let stream = match loader.device() {
        Device::Cuda(ordinal) => Some(CudaContext::new(ordinal as usize)?.new_stream()?),
        _ => None,
    };
    for batch in loader.epochs(0..2) {
        let batch = batch?;
        let seen = match &stream {
            Some(stream) => step_on_device(stream, &batch)?,
            None => step_on_host(&batch)?,
        };
        println!("epoch {} step {:3}: {seen}", batch.epoch(), batch.step());
    } // Each batch is dropped while its step may still run: its memory is written again only behind that.
    println!("{}", loader.report());
    Ok(())
}

/// Enqueues a step. Nothing here waits for the loader's kernels but `stream`; the host does so for the sake of printing.
fn step_on_device(stream: &Arc<CudaStream>, batch: &Batch) -> anyhow::Result<String> {
    let images = batch.on(stream)?;
    let labels = batch.labels_on(stream)?;
    let pixels = images.view::<f32>().context("the images are f32")?; // [64, 3, 224, 224]
    let image = stream.clone_dtoh(&pixels.slice(..pixels.len() / batch.len()))?;
    let labels = stream.clone_dtoh(&labels)?;
    stream.synchronize()?;
    Ok(summary(&image, &labels))
}

fn step_on_host(batch: &Batch) -> anyhow::Result<String> {
    let images = batch.images().context("all images have one size")?;
    let pixels = images.as_f32().context("the images are f32")?;
    Ok(summary(&pixels[..pixels.len() / batch.len()], batch.labels()))
}

fn summary(image: &[f32], labels: &[i64]) -> String {
    let mean = image.iter().sum::<f32>() / image.len() as f32;
    format!("{} labels from {}, the first image's mean is {mean:+.4}", labels.len(), labels[0])
}
