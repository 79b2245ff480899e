//! From the options to loaders.

use std::sync::Arc;
use std::time::Duration;

use forebay::engine::{Depth, EngineKind, SimFaults, SimOptions};
use forebay::order::{LastBatch, Shard, Shuffle};
use forebay::plan::OUTPUT_SIDE_MAX;
use forebay::source::{Filter, LabelTable, Mismatch, Source, Subset};
use forebay::{Augment, DType, Error, Geometry, Layout, Loader, LoaderBuilder, Pool, PoolOptions, State};

use super::Load;
use super::crops::{Crop, Crops};
use super::options::{Element, LabelColumns, Preset};
use crate::ui;

impl Load {
    fn shard(&self) -> forebay::Result<Shard> {
        match (self.rank, self.world) {
            (Some(rank), Some(world)) => Shard::new(rank, world),
            _ if self.rank_from_env => Shard::from_env(),
            _ => Ok(Shard::WHOLE),
        }
    }

    /// What both loaders share, if there are two and they do.
    pub(super) fn pool(&self) -> anyhow::Result<Option<Pool>> {
        if self.beside.is_none() || self.no_pool {
            return Ok(None);
        }
        Ok(Some(Pool::new(PoolOptions { threads: self.decode_threads()?, depth: self.depth })?))
    }

    /// The load beside it: the same but for what is of one data set.
    pub(super) fn other(&self) -> Option<Self> {
        let Self {
            device, decoder, engine, direct, index, threads, pin, batch, size, dtype, layout, depth, slots, ..
        } = *self;
        let other = Self::of(self.beside.as_deref()?);
        let other = Self { device, decoder, engine, direct, index, threads, pin, batch, size, dtype, layout, ..other };
        Some(Self { augment: self.beside_augment, depth, slots, fixed_depth: self.fixed_depth, ..other })
    }

    /// Those asked for; 0 for as many as there are processors to run on.
    fn decode_threads(&self) -> forebay::Result<usize> {
        self.threads.map_or(Ok(0), |threads| ui::threads(Some(threads)))
    }

    pub(super) fn loader(&self, resumed: Option<State>, pool: Option<&Pool>) -> anyhow::Result<Loader> {
        let threads = self.decode_threads()?;
        let shuffle = match self.shuffle_block {
            Some(samples_per_block) => Shuffle::Block { samples_per_block },
            None => Shuffle::Full,
        };
        let last_batch = match (self.partial, self.pad) {
            (true, _) => LastBatch::Partial,
            (false, true) => LastBatch::Pad,
            (false, false) => LastBatch::Drop,
        };
        // Parameters are judged before the data set is looked at.
        let views = self.views()?;
        if self.batch == 0 {
            return Err(Error::invalid_parameter("--batch", 0, "a batch has at least one sample").into());
        }
        if self.sim_faults != SimFaults::NONE && self.engine != EngineKind::Sim {
            let allowed = "only the engine sim has faults to order: --engine sim";
            return Err(Error::invalid_parameter("--sim-faults", self.sim_faults, allowed).into());
        }
        let read_timeout = Duration::try_from_secs_f64(self.read_timeout).ok().filter(|timeout| !timeout.is_zero());
        let read_timeout = read_timeout.ok_or_else(|| {
            Error::invalid_parameter("--read-timeout", self.read_timeout, "a positive number of seconds is needed")
        })?;
        let builder = self
            .data_sets()?
            .views(views)
            .batch_size(self.batch)
            .shard(self.shard()?)
            .last_batch(last_batch)
            .shuffle(shuffle)
            .seed(self.seed)
            .threads(threads)
            .pin(self.pin)
            .pool_weight(self.pool_weight)
            .depth(self.depth)
            .limit_mbps(self.limit_mbps.clone().unwrap_or_default())
            .depth_control(if self.fixed_depth { Depth::Fixed } else { Depth::default() })
            .sqpoll(self.sqpoll)
            .iopoll(self.iopoll)
            .orientation(self.orientation)
            .device(self.device)
            .decoder(self.decoder)
            .fewer_slots(self.fewer_slots)
            .engine(self.engine)
            .direct(self.direct)
            .require_path(self.require_path)
            .cufile_api(self.cufile_api)
            .read_timeout(read_timeout)
            .on_error(self.on_error)
            .sim(SimOptions { seed: self.sim_seed, faults: self.sim_faults, ..SimOptions::default() })
            .index(self.index);
        let builder = match pool {
            Some(pool) => builder.pool(pool),
            None => builder,
        };
        let builder = match self.global_batch {
            Some(samples) => builder.global_batch_size(samples),
            None => builder,
        };
        let builder = match resumed {
            Some(state) => builder.resume(state),
            None => builder,
        };
        let builder = match self.error_budget {
            Some(budget) => builder.error_budget(budget),
            None => builder,
        };
        let builder = match &self.bad_samples {
            Some(path) => builder.bad_samples_file(path),
            None => builder,
        };
        let builder = match &self.index_dir {
            Some(dir) => builder.index_dir(dir),
            None => builder,
        };
        let builder = match self.raw_shape {
            Some(shape) => builder.raw_shape(shape),
            None => builder,
        };
        let builder = match self.memory_mib {
            Some(mebibytes) => builder.memory_mib(mebibytes),
            None => builder,
        };
        let builder = match self.slots {
            Some(slots) => builder.slots(slots),
            None => builder,
        };
        let builder = match self.landing_bytes {
            Some(bytes) => builder.landing_bytes(bytes),
            None => builder,
        };
        let builder = match self.scratch_bytes {
            Some(bytes) => builder.scratch_bytes(bytes),
            None => builder,
        };
        let builder = if self.balanced { builder.balanced() } else { builder };
        let builder = match self.label_table() {
            Some(table) => builder.map_source(move |source| Ok(Arc::new(table.join(source)?))),
            None => builder,
        };
        let builder = match self.filter.iter().cloned().reduce(Filter::and) {
            Some(filter) => {
                builder.map_source(move |source| Ok(Arc::new(Subset::matching(source, &filter)?) as Arc<dyn Source>))
            }
            None => builder,
        };
        Ok(builder.build()?)
    }

    /// The data sets, as one or mixed.
    fn data_sets(&self) -> forebay::Result<LoaderBuilder> {
        if self.mix.is_empty() {
            return Ok(Loader::open_all(&self.datasets));
        }
        if self.mix.len() != self.datasets.len() {
            let weights = self.mix.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
            let allowed = format!("a weight for each of the {} data sets is needed", self.datasets.len());
            return Err(Error::invalid_parameter("--mix", weights, &allowed));
        }
        let builder = Loader::mixture(self.datasets.iter().zip(self.mix.iter().copied()));
        Ok(match self.mix_epoch {
            Some(samples) => builder.mixture_epoch(samples),
            None => builder,
        })
    }

    fn label_table(&self) -> Option<LabelTable> {
        let LabelColumns { key, label } = &self.label_columns;
        let table = LabelTable::new(self.labels.as_ref()?).columns(key, label);
        let mismatch = if self.labels_partial { Mismatch::Note } else { Mismatch::Fail };
        Some(table.repeated(mismatch).unmatched_rows(mismatch).unmatched_samples(mismatch))
    }

    /// The groups of views that are made of every sample.
    pub(super) fn views(&self) -> forebay::Result<Vec<(Augment, usize)>> {
        match &self.crops {
            None => Ok(vec![(self.augment("--size", self.size, None)?, self.repeat)]),
            Some(Crops(crops)) => {
                let group = |crop: &Crop| Ok((self.augment("--crops", crop.size, crop.scale)?, crop.count));
                crops.iter().map(group).collect()
            }
        }
    }

    fn augment(&self, option: &str, size: u32, scale: Option<[f64; 2]>) -> forebay::Result<Augment> {
        if !(1..=OUTPUT_SIDE_MAX).contains(&size) {
            let allowed = format!("a side is 1 to {OUTPUT_SIDE_MAX} pixels");
            return Err(Error::invalid_parameter(option, size, &allowed));
        }
        let builder = match (self.augment, scale) {
            (Preset::ImagenetTrain, None) => Augment::imagenet_train(size),
            (Preset::ImagenetTrain, Some(scale)) => {
                let geometry = Geometry::RandomResizedCrop { size: size.into(), scale, ratio: [3.0 / 4.0, 4.0 / 3.0] };
                Augment::imagenet_train(size).geometry(geometry)
            }
            (Preset::ImagenetVal | Preset::None, Some(_)) => {
                let allowed = "only random crops have an area to choose: --augment imagenet-train";
                return Err(Error::invalid_parameter(option, "with bounds of an area", allowed));
            }
            (Preset::ImagenetVal, None) => Augment::imagenet_val(size),
            // Pixels as decoded are bytes; --dtype and --layout speak of tensors.
            (Preset::None, None) => {
                return Augment::builder(Geometry::None).dtype(DType::U8).layout(Layout::Nhwc).build();
            }
        };
        // Bytes hold pixels, not normalised values.
        let builder = if self.dtype == Element::U8 { builder.without_normalize() } else { builder };
        builder.dtype(self.dtype.into()).layout(self.layout.into()).dct_scaling(self.dct_scaling).build()
    }
}
