//! What was asked for, checked and put together.

use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex};

use super::LoaderBuilder;
use super::samples::{BatchSize, Taken};
use crate::decode::DecoderKind;
use crate::device::cuda::Gpu;
use crate::device::{Device, DeviceChoice};
use crate::engine::{Direct, Engine, EngineKind, EngineOptions, RequirePath, estimate_data_set_bytes};
use crate::error::{Error, ErrorKind, Result};
use crate::loader::cuda::Built;
use crate::loader::direct::CuFileChoice;
use crate::loader::judge::BadSamplesFile;
use crate::loader::{Loader, OnError, Processors, Shared, node_of};
use crate::memory::{Budget, MemoryPlan, resident_bytes};
use crate::plan::{Augment, Views};
use crate::pool::Pool;
use crate::report::{Counters, Fallback};
use crate::source::{IndexMode, Source};

/// Operations in flight, unless told otherwise.
const DEPTH: usize = 32;

/// Samples that are looked at to tell whether a data set has an index.
const INDEX_PROBES: u64 = 64;

impl LoaderBuilder {
    /// Checks everything, opens the data set and allocates all memory.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` and `EmptyDataset` for what was asked, `LimitExceeded` if the memory is not to
    /// be had, `OutOfMemory` if the device's is not, `Unavailable` if an engine, device or decoder asked for by name is
    /// not, and those of [`open_with`](crate::source::open_with), of what is made of the source and of the weights.
    pub fn build(mut self) -> Result<Loader> {
        let batch_size = self.batch_size.of_rank(self.shard)?;
        self.batch_size = BatchSize::OfRank(batch_size);
        if self.index.mode == IndexMode::Build && self.shard.world_size() > 1 {
            let allowed = "a rank sees its share of the data set only: build the index with `forebay index`";
            return Err(Error::invalid_parameter("index", self.index.mode, allowed));
        }
        let views = match &self.views {
            Some(groups) => Views::new(groups.iter().copied())?,
            None => Views::new([(Augment::imagenet_train(224).build()?, 1)])?,
        };
        if let Some(slots) = self.slots.filter(|slots| !(2..=1024).contains(slots)) {
            return Err(Error::invalid_parameter("slots", slots, "2 to 1024: one to fill and one to hand out"));
        }
        if self.index.mode == IndexMode::Build && self.memory_mib.is_some() {
            let allowed = "what is noted for an index grows with the data set: build it with `forebay index`";
            return Err(Error::invalid_parameter("index", self.index.mode, allowed));
        }
        if let Some(shape) = self.raw_shape {
            shape.check()?;
            self.limits.check_dimensions(shape.width, shape.height)?;
        }
        if self.threads > 4096 {
            return Err(Error::invalid_parameter("threads", self.threads, "at most 4096 threads decode"));
        }
        let share = self.pool.as_ref().map(|pool| pool.join(self.pool_weight)).transpose()?;
        if self.read_timeout.is_zero() {
            return Err(Error::invalid_parameter("read_timeout", "0", "a read takes some time"));
        }
        self.check_policy()?;
        self.check_decoder(&views)?;
        self.check_path()?;
        let rate_limits = self.rate_limits.resolve()?;
        let (gpu, fallback) = self.open_device(&views)?;
        let choice = self.choice(batch_size);
        let resident_before = resident_bytes();
        let mut found = choice.find()?;
        let source_bytes = resident_before.zip(resident_bytes()).map_or(0, |(then, now)| now.saturating_sub(then));
        let samples = self.resume.map_or(u64::MAX, |state| state.samples_of(&found));
        let Taken { source, data_set, order, steps } = choice.take(&found, samples)?;
        let resumed = self.resume.map(|state| state.check(&order, data_set)).transpose()?;
        let data_set_bytes = estimate_data_set_bytes(&*source);
        let engine_options = EngineOptions {
            direct: self.direct,
            data_set_bytes,
            cufile_api: self.cufile_api,
            read_timeout: self.read_timeout,
            sim: self.sim,
            depth: self.depth_control,
            sqpoll: self.sqpoll,
            iopoll: self.iopoll,
            ..EngineOptions::default()
        };
        let pci = || gpu.as_ref().and_then(Gpu::pci_place);
        let (processors, unpinned) = self.pin.resolve(|| node_of(&*source, pci))?;
        let (threads, depth) = (self.decode_threads(processors.as_ref()), self.depth_max());
        let mut device_fallbacks: Vec<_> = fallback.into_iter().chain(unpinned).collect();
        let (memory, arena, slots, cuda) = match gpu {
            None => self.host_memory(&views, &*source, threads)?,
            Some(gpu) => {
                if self.decoder.needs_index() && !self.can_plan(&*source) {
                    return Err(no_index(self.decoder));
                }
                let nvjpeg = match self.nvjpeg(&gpu, &views, &*source, threads) {
                    Some(Err(error)) if self.decoder == DecoderKind::Auto && error.kind() == ErrorKind::Unavailable => {
                        device_fallbacks.push(no_nvjpeg(&error));
                        None
                    }
                    opened => opened.transpose()?,
                };
                let sample_bytes = data_set_bytes.unwrap_or(0) / source.len().max(1);
                let (memory, built) = self.device_memory(gpu, nvjpeg, &views, &*source, (sample_bytes, threads))?;
                let Built { cuda, arena, slots, fallbacks, .. } = built;
                device_fallbacks.extend(fallbacks);
                (memory, arena, slots, Some(cuda))
            }
        };
        if self.engine != EngineKind::Auto {
            // The engine itself is made on the feed thread; here it only shows that it can be made.
            match cuda.as_ref().and_then(|cuda| cuda.cufile.as_ref()) {
                Some(cufile) => Engine::with_cufile(cufile, &arena, depth, engine_options)?,
                None => Engine::new(self.engine, &arena, depth, engine_options)?,
            };
        }
        let (bad_samples_file, unwritten) = self.bad_samples_file.as_deref().map(BadSamplesFile::open).unzip();
        let loader = Loader {
            shared: Arc::new(Shared {
                source,
                parts: found.part_names(),
                order,
                data_set,
                steps,
                views: Arc::new(views),
                orientation: self.orientation,
                decoder: self.decoder,
                cuda,
                device_fallbacks,
                limits: self.limits,
                raw_shape: self.raw_shape,
                index: self.index.mode,
                recorder: found.recorder.take(),
                engine: self.engine,
                engine_options,
                depth,
                share,
                processors,
                rate_limits,
                threads,
                held_timeout: self.held_timeout,
                on_error: self.on_error,
                budget: self.error_budget.unwrap_or_default(),
                bad_samples_file,
                decode_budget: Budget::new(memory.decode_bytes),
                memory: MemoryPlan { source_bytes, ..memory },
                arena,
                slots,
                held: Arc::new(AtomicUsize::new(0)),
                counters: Counters::default(),
                engine_name: Mutex::new("none yet"),
                stop: AtomicBool::new(false),
            }),
            choice,
            found,
            taken: resumed.unwrap_or_default(),
            resumed,
        };
        if let Some(error) = unwritten.flatten() {
            loader.shared.count_unwritten(|| error);
        }
        Ok(loader)
    }

    /// Refuses what would say nothing, as the first bad sample ends the run.
    fn check_policy(&self) -> Result<()> {
        let (budget, file) = (self.error_budget.map(|budget| budget.to_string()), self.bad_samples_file.as_ref());
        let file = file.map(|path| path.display().to_string());
        let asked = [("error_budget", budget), ("bad_samples_file", file)];
        let useless = asked.into_iter().find_map(|(name, value)| value.map(|value| (name, value)));
        match useless {
            Some((name, value)) if self.on_error == OnError::Fail => {
                let allowed = "the first bad sample ends the run, and is its error: use on_error replace or skip";
                Err(Error::invalid_parameter(name, value, allowed))
            }
            _ => Ok(()),
        }
    }

    /// Decode threads, of a loader that runs on these processors or any.
    fn decode_threads(&self, processors: Option<&Processors>) -> usize {
        let most = self.pool.as_ref().map_or(usize::MAX, Pool::threads);
        let there = || std::thread::available_parallelism().map_or(1, usize::from);
        match (self.threads, processors) {
            (0, Some(processors)) => processors.pinned().processors.min(there()).min(most),
            (0, None) => there().min(most),
            (threads, _) => threads.min(most),
        }
    }

    /// Operations in flight, at most.
    pub(super) fn depth_max(&self) -> usize {
        let of_pool = self.pool.as_ref().map(Pool::depth);
        let depth = self.depth.or(of_pool).unwrap_or(DEPTH);
        depth.min(of_pool.unwrap_or(depth))
    }

    /// Refuses a decoder that contradicts what else was asked for.
    fn check_decoder(&self, views: &Views) -> Result<()> {
        if views.len() > 1 && matches!(self.decoder, DecoderKind::NvJpeg | DecoderKind::NvJpegDevice) {
            let allowed = "nvJPEG makes one view of a sample: use auto or kernels, with an index";
            return Err(Error::invalid_parameter("decoder", self.decoder, allowed));
        }
        let is_of_device =
            matches!(self.decoder, DecoderKind::Kernels | DecoderKind::NvJpeg | DecoderKind::NvJpegDevice);
        if is_of_device && self.device == DeviceChoice::Exactly(Device::Host) {
            return Err(Error::invalid_parameter("decoder", self.decoder, "the device host has its own: use auto"));
        }
        if self.index.mode == IndexMode::Off && self.decoder.needs_index() && self.raw_shape.is_none() {
            let allowed = "this decoder works by an index: use auto";
            return Err(Error::invalid_parameter("index", self.index.mode, allowed));
        }
        Ok(())
    }

    /// Refuses a path to the device that contradicts what else was asked for.
    fn check_path(&self) -> Result<()> {
        let (is_cufile, is_direct) = (self.engine == EngineKind::CuFile, self.require_path == RequirePath::Direct);
        if !is_cufile && !is_direct {
            return Ok(());
        }
        if is_direct && !is_cufile && self.engine != EngineKind::Auto {
            let allowed = "the path direct is cuFile's: use the engine cufile or auto";
            return Err(Error::invalid_parameter("engine", self.engine, allowed));
        }
        if self.device == DeviceChoice::Exactly(Device::Host) {
            let allowed = "cuFile reads into the memory of a CUDA device: use cuda:0, for example";
            return Err(Error::invalid_parameter("device", "host", allowed));
        }
        if !self.decoder.lands_on_device() {
            let allowed = "cuFile brings the bytes to the device, where the kernels decode them: use auto or kernels";
            return Err(Error::invalid_parameter("decoder", self.decoder, allowed));
        }
        if self.index.mode == IndexMode::Off && self.raw_shape.is_none() {
            let allowed = "what the host does not see has to be indexed: use auto or required";
            return Err(Error::invalid_parameter("index", self.index.mode, allowed));
        }
        Ok(())
    }

    /// Whether cuFile is to read.
    pub(super) fn cufile_choice(&self, source: &dyn Source) -> CuFileChoice {
        let can_land = self.decoder.lands_on_device() && self.direct != Direct::Off;
        match (self.engine, self.require_path) {
            (EngineKind::CuFile, require) | (EngineKind::Auto, require @ RequirePath::Direct) => {
                CuFileChoice::Needed(require)
            }
            (EngineKind::Auto, _) if can_land && self.can_plan(source) => CuFileChoice::IfDirect,
            _ => CuFileChoice::No,
        }
    }

    /// Whether samples can be planned before they are read: by an index, or a shape that was told.
    fn can_plan(&self, source: &dyn Source) -> bool {
        self.raw_shape.is_some() || indexed(source).any(|is_indexed| is_indexed)
    }

    /// The device, if not the host, and why the host if it was left to us.
    fn open_device(&self, views: &Views) -> Result<(Option<Gpu>, Option<Fallback>)> {
        let has_own_sizes = views.has_own_sizes();
        let (gpu, fallback) = match self.device {
            DeviceChoice::Auto if has_own_sizes => (None, Some(Fallback::host_device(&own_sizes()))),
            DeviceChoice::Exactly(Device::Cuda(_)) if has_own_sizes => return Err(own_sizes()),
            device => device.open()?,
        };
        match (&gpu, self.decoder) {
            (None, DecoderKind::Kernels | DecoderKind::NvJpeg | DecoderKind::NvJpegDevice) => {
                let cause = fallback.map_or_else(String::new, |fallback| format!(": {}", fallback.cause));
                let message = format!("the decoder {} is not to be had without a CUDA device{cause}", self.decoder);
                Err(Error::new(ErrorKind::Unavailable, message).with_remedy("use the decoder auto"))
            }
            _ => Ok((gpu, fallback)),
        }
    }
}

/// Whether an index describes them, or the shape of raw pixels, of some samples from all over the data set.
pub(super) fn indexed(source: &dyn Source) -> impl Iterator<Item = bool> {
    let (len, probes) = (source.len(), source.len().min(INDEX_PROBES));
    let samples = (0..probes).map(move |probe| (u128::from(probe) * u128::from(len) / u128::from(probes)) as u64);
    samples
        .map(|sample| matches!(source.is_headerless(sample), Ok(true)) || matches!(source.record(sample), Ok(Some(_))))
}

fn own_sizes() -> Error {
    let allowed = "on a device all images of a batch have one size: use a geometry that resizes, or the device host";
    Error::invalid_parameter("geometry", "None", allowed)
}

fn no_index(decoder: DecoderKind) -> Error {
    let message = format!("the decoder {decoder} is not to be had: no index describes the data set");
    Error::new(ErrorKind::Unavailable, message)
        .with_remedy("build one with `forebay index DATASET`, or use the decoder auto")
}

fn no_nvjpeg(error: &Error) -> Fallback {
    let fallback = Fallback {
        what: Fallback::NVJPEG,
        instead: "host decoders",
        cause: error.cause(),
        remedy: error.remedy().unwrap_or("index the data set, so that the kernels decode it: forebay index").to_owned(),
        count: 1,
    };
    log::warn!("{fallback}");
    fallback
}
