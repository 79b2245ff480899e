//! Train, be killed, resume: the same samples in the same batches as if nothing had happened.
//!
//! ```sh
//! cargo run --release -- datagen photos --count 512         # or a data set of your own
//! cargo run --release --example resume -- photos
//! ```
//!
//! This process starts another that trains, kills it in the middle of an epoch without a warning (SIGKILL), and starts it
//! again. The loss of a stand-in for a network, which depends on every pixel and on the order of the batches, must then
//! be that of a training that nobody disturbed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use forebay::{Augment, Batch, Loader, Shard, State};
use serde::{Deserialize, Serialize};

const EPOCHS: u64 = 2;
const BATCH: u64 = 16;

/// What a training saves: its weights, and how far its data has come, in one file, so that they always fit each other.
#[derive(Default, Serialize, Deserialize)]
struct Checkpoint {
    weight: f64,
    state: Option<State>,
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [data_set] => compare(data_set),
        [data_set, checkpoint, hang_after] => train(data_set, Path::new(checkpoint), hang_after.parse()?),
        _ => bail!("usage: resume DATASET"),
    }
}

/// The training, as you would write it, but that it stands still after some steps: the line that starts it resumes it too.
fn train(data_set: &str, path: &Path, hang_after: u64) -> anyhow::Result<()> {
    let mut checkpoint = load(path)?;
    let builder = Loader::open(data_set)
        .augment(Augment::imagenet_train(64).build()?)
        .global_batch_size(BATCH)
        .shard(Shard::from_env()?)
        .seed(7);
    let mut loader = match checkpoint.state {
        Some(state) => builder.resume(state).build()?,
        None => builder.build()?,
    };
    for (steps, batch) in (1..).zip(loader.epochs(0..EPOCHS)) {
        let batch = batch?;
        checkpoint.weight = step(checkpoint.weight, &batch)?;
        checkpoint.state = Some(batch.state());
        save(&checkpoint, path)?;
        println!("epoch {} step {:3}: loss {:.9}", batch.epoch(), batch.step(), checkpoint.weight);
        while steps == hang_after {
            std::thread::park();
        }
    }
    Ok(())
}

/// In place of a forward and a backward pass.
fn step(weight: f64, batch: &Batch) -> anyhow::Result<f64> {
    let images = batch.images().context("all images have one size")?;
    let pixels = images.as_f32().context("the images are f32")?;
    let mean = pixels.iter().map(|&pixel| f64::from(pixel)).sum::<f64>() / pixels.len() as f64;
    Ok(0.9 * weight + 0.1 * mean)
}

fn load(path: &Path) -> anyhow::Result<Checkpoint> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Checkpoint::default()),
        Err(error) => Err(error).context("reading the checkpoint"),
    }
}

/// The old one or the new one is there, whenever the process ends.
fn save(checkpoint: &Checkpoint, path: &Path) -> anyhow::Result<()> {
    let unfinished = path.with_extension("writing");
    std::fs::write(&unfinished, serde_json::to_vec(checkpoint)?)?;
    Ok(std::fs::rename(unfinished, path)?)
}

fn compare(data_set: &str) -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("forebay-resume-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let done = compare_in(data_set, &folder);
    std::fs::remove_dir_all(&folder)?;
    done
}

fn compare_in(data_set: &str, folder: &Path) -> anyhow::Result<()> {
    let (whole, parts) = (folder.join("whole.json"), folder.join("parts.json"));
    let undisturbed = run(data_set, &whole, None)?;
    // In the middle of the second epoch.
    run(data_set, &parts, Some(undisturbed.len() * 3 / 4))?;
    let killed = load(&parts)?.state.context("no checkpoint was written")?;
    println!("killed: the checkpoint is at epoch {}, position {}", killed.epoch(), killed.position());
    let resumed = run(data_set, &parts, None)?;
    ensure!(!resumed.is_empty() && undisturbed.ends_with(&resumed), "the resumed training went another way");
    ensure!(load(&whole)?.weight.to_bits() == load(&parts)?.weight.to_bits(), "the weights differ");
    println!("the same to the last bit: {} steps, then {}", undisturbed.len() - resumed.len(), resumed.len());
    Ok(())
}

/// Trains in a process of its own, which may be killed after some steps, each of which it prints. What it printed.
fn run(data_set: &str, checkpoint: &Path, kill_after: Option<usize>) -> anyhow::Result<Vec<String>> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg(data_set)
        .arg(checkpoint)
        .arg(kill_after.unwrap_or(0).to_string())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the training")?;
    let output = child.stdout.take().context("it has no output")?;
    let printed = BufReader::new(output).lines().take(kill_after.unwrap_or(usize::MAX)).collect::<Result<Vec<_>, _>>();
    if kill_after.is_some() {
        child.kill()?;
    }
    let status = child.wait()?;
    ensure!(kill_after.is_some() || status.success(), "the training failed: {status}");
    let printed = printed.context("reading its output")?;
    printed.iter().for_each(|line| println!("{line}"));
    Ok(printed)
}
