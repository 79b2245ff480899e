//! `forebay demo`: a small photo-like data set through the whole path.

use std::path::PathBuf;

use clap::Args;
use forebay::device::{Device, DeviceChoice};

use crate::datagen::{self, Options};
use crate::index::Index;
use crate::load::Load;
use crate::ui;

/// Makes a small photo-like data set and its index, takes it through the whole path and shows the report and a
/// picture.
#[derive(Args)]
pub struct Demo {
    /// Directory for the data set and the picture; a data set from an earlier demo is used again
    #[arg(long, value_name = "DIR", default_value = "forebay-demo")]
    pub dir: PathBuf,
}

/// Enough for a figure that means something, few enough to make in seconds.
const SAMPLES: u64 = 400;

/// Samples of a batch, and epochs: enough batches to see a steady state.
const BATCH: u64 = 64;
const EPOCHS: u64 = 5;

impl Demo {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<()> {
        let data_set = self.data_set()?;
        let preview = self.dir.join("first-batch.png");
        let name = data_set.display().to_string();
        ui::print(&format!("data set      {name}\n"))?;
        Index::of(&name).run()?;
        // The host is no worse a demonstration, so that nothing is said where no device works.
        let device = DeviceChoice::Auto.resolve().map_or(Device::Host, |(device, _)| device);
        let defaults = Load { batch: BATCH, epochs: EPOCHS, ..Load::of(&name) };
        Load { device: device.into(), digest: true, preview: Some(preview.clone()), ..defaults }.run()?;
        ui::print(&format!("picture       {}\n", preview.display()))?;
        Ok(())
    }

    /// The data set, made if it is not there yet.
    fn data_set(&self) -> forebay::Result<PathBuf> {
        let dir = self.dir.join("photos");
        let options = Options { count: SAMPLES, ..Options::default() };
        datagen::generate(&dir, &options, ui::threads(None)?)?;
        Ok(dir)
    }
}
