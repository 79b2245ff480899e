//! `forebay index` and `forebay verify` as their user meets them.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::cli_support::{fails, forebay, runs};
use crate::common::{folder, shards};
use crate::index_support::{jpeg, required, samples};
use forebay::jpeg::Header;
use tempfile::tempdir;

/// The command without a launcher's variables.
fn index(dataset: impl AsRef<Path>) -> Command {
    let mut command = forebay();
    for name in
        ["RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID", "SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX"]
    {
        command.env_remove(name);
    }
    command.arg("index").arg(dataset.as_ref());
    command
}

fn verify(dataset: impl AsRef<Path>) -> Command {
    let mut command = forebay();
    command.arg("verify").arg(dataset.as_ref());
    command
}

fn line<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name:?} in {text}"))
}

#[test]
fn an_index_is_built_once_summed_up_and_verified() {
    let dir = tempdir().unwrap();
    let pattern = shards(dir.path(), &samples(40, 2), 15);
    let json = dir.path().join("result.json");
    let text = runs(index(&pattern).args(["--threads", "2", "--json"]).arg(&json));
    assert!(line(&text, "index files").contains("3 built, 0 up to date, 0 failed"), "{text}");
    assert!(line(&text, "images").contains("40"), "{text}");
    assert!(line(&text, "no entries").contains("8: baseline in several scans"), "{text}");
    let result: serde_json::Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    assert_eq!(
        (&result["images"], &result["files"]["built"], &result["schema_version"]),
        (&40.into(), &3.into(), &1.into())
    );
    assert!(result["index_bytes"].as_u64().unwrap() > 0 && result["images_per_core_second"].as_f64().unwrap() > 0.0);
    let text = runs(&mut index(&pattern));
    assert!(line(&text, "index files").contains("0 built, 3 up to date"), "{text}");
    let text = runs(index(&pattern).arg("--force"));
    assert!(line(&text, "index files").contains("3 built"), "{text}");
    let text = runs(verify(&pattern).arg("--json").arg(&json));
    assert!(text.contains("all well") && line(&text, "images").contains("40 compared"), "{text}");
    let result: serde_json::Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    assert_eq!((&result["problems"], &result["indexed"]), (&0.into(), &40.into()));
}

#[test]
fn shards_that_a_shell_names_one_by_one_and_folders_are_built_and_verified_together() {
    let dir = tempdir().unwrap();
    shards(dir.path(), &samples(40, 2), 10);
    let root = folder(dir.path(), &samples(6, 2));
    let name = |number| dir.path().join(format!("train-00{number}.tar"));
    let several = |command: &mut Command| runs(command.args([name(1), name(2), name(3)]).arg(&root));
    // A part is one of all shards together, and one of the folder.
    for (part, images) in [("0/2", 23), ("1/2", 23)] {
        let text = several(index(name(0)).args(["--part", part]));
        assert!(line(&text, "index files").contains("3 built, 0 up to date, 0 failed"), "{text}");
        assert!(line(&text, "images").contains(&images.to_string()), "{text}");
    }
    let text = several(&mut verify(name(0)));
    assert!(text.contains("all well") && line(&text, "images").contains("46 compared"), "{text}");
    // What is named twice, or alike, would have one index.
    let stderr = fails(index(name(0)).arg(name(0)), 2);
    assert!(stderr.contains("train-000.tar") && stderr.contains("name each once"), "{stderr}");
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::copy(name(0), other.join("train-000.tar")).unwrap();
    let stderr = fails(index(name(0)).arg(other.join("train-000.tar")).arg("--index-dir").arg(dir.path()), 2);
    assert!(stderr.contains("other/train-000.tar") && stderr.contains("--index-dir"), "{stderr}");
    // None is built where one cannot be found.
    let stderr = fails(index(other.join("train-000.tar")).arg(dir.path().join("none.tar")), 1);
    assert!(stderr.contains("none.tar") && !other.join("train-000.tar.index.arrow").exists(), "{stderr}");
}

#[test]
fn a_failed_shard_is_named_and_fails_the_command_and_no_other_shard() {
    let dir = tempdir().unwrap();
    let pattern = shards(dir.path(), &samples(30, 2), 10);
    let bad = dir.path().join("train-001.tar");
    fs::write(&bad, &fs::read(&bad).unwrap()[..3000]).unwrap();
    let stderr = fails(&mut index(&pattern), 1);
    assert!(stderr.contains("train-001.tar") && stderr.contains("help: "), "{stderr}");
    for number in [0, 2] {
        assert!(dir.path().join(format!("train-00{number}.tar.index.arrow")).exists());
    }
}

#[test]
fn unreadable_images_are_rows_and_named() {
    let dir = tempdir().unwrap();
    let root = folder(dir.path(), &samples(10, 2));
    fs::write(root.join("class0/torn.jpg"), &jpeg(2)[..900]).unwrap();
    let text = runs(&mut index(&root));
    assert!(line(&text, "unreadable").contains("torn.jpg") && line(&text, "images").contains("11"), "{text}");
    let output = verify(&root).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(line(&text, "problem").contains("torn.jpg"), "{text}");
}

#[test]
fn wrong_commands_exit_with_2() {
    let dir = tempdir().unwrap();
    let root = folder(dir.path(), &samples(2, 1));
    for arguments in
        [["--part", "3/3"], ["--part", "x"], ["--threads", "0"], ["--entry-bits", "5"], ["--entry-bits", "many"]]
    {
        let stderr = fails(index(&root).args(arguments), 2);
        assert!(stderr.contains(arguments[1]), "{stderr}");
    }
    assert!(fails(&mut index(dir.path().join("none")), 1).contains("none"));
}

#[test]
fn launchers_are_asked_for_the_part_and_it_is_announced() {
    let dir = tempdir().unwrap();
    let root = folder(dir.path(), &samples(20, 2));
    for rank in 0..3 {
        let output = index(&root).env("RANK", rank.to_string()).env("WORLD_SIZE", "3").output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && stderr.contains(&format!("part {rank}/3 by RANK")), "{stderr}");
    }
    assert_eq!(required(&root).len(), 20);
    let stderr = fails(index(&root).env("JOB_COMPLETION_INDEX", "0"), 2);
    assert!(stderr.contains("JOB_COMPLETIONS") && stderr.contains("--part"), "{stderr}");
    let text = runs(index(&root).env("RANK", "1").env("WORLD_SIZE", "3").args(["--part", "0/1", "--force"]));
    assert!(line(&text, "images").contains("20"), "{text}");
}

#[test]
fn verify_finds_every_kind_of_damage() {
    let dir = tempdir().unwrap();
    let pattern = shards(dir.path(), &samples(12, 2), 12);
    let shard = dir.path().join("train-000.tar");
    let sidecar = dir.path().join("train-000.tar.index.arrow");
    runs(&mut index(&pattern));
    let (data, indexed) = (fs::read(&shard).unwrap(), fs::read(&sidecar).unwrap());
    let modified = fs::metadata(&shard).unwrap().modified().unwrap();
    // A byte of an image, in a shard whose time does not show it.
    let scan = data.windows(2).position(|pair| pair == [0xFF, 0xDA]).unwrap();
    for at in [scan + 100, scan + 500] {
        let mut damaged = data.clone();
        damaged[at] ^= 0x10;
        fs::write(&shard, &damaged).unwrap();
        fs::File::options().write(true).open(&shard).unwrap().set_modified(modified).unwrap();
        let text = problem(&pattern);
        assert!(text.contains("class0/00000") && text.contains("not those that were indexed"), "{at}: {text}");
    }
    fs::write(&shard, &data).unwrap();
    fs::File::options().write(true).open(&shard).unwrap().set_modified(modified).unwrap();
    runs(&mut verify(&pattern));
    // A bit of the index: a height among its columns.
    let mut damaged = indexed.clone();
    let height = Header::parse(&jpeg(3)).unwrap().height.to_le_bytes();
    let after = Header::parse(&jpeg(4)).unwrap().height.to_le_bytes();
    let pair = [height, after].concat();
    let at = indexed.windows(8).position(|window| window == pair).unwrap();
    damaged[at] ^= 1;
    fs::remove_file(&sidecar).unwrap();
    fs::write(&sidecar, &damaged).unwrap();
    let text = problem(&pattern);
    assert!(text.contains("damaged") && text.contains("forebay index"), "{text}");
    // Which does help.
    let text = runs(&mut index(&pattern));
    assert!(line(&text, "index files").contains("1 built, 0 up to date"), "{text}");
    runs(&mut verify(&pattern));
    // No index: images are decoded and nothing is wrong.
    fs::remove_file(&sidecar).unwrap();
    let text = runs(&mut verify(&pattern));
    assert!(text.contains("no index") && text.contains("12 read and decoded, 0 compared"), "{text}");
}

/// What verifying says of the first problem.
fn problem(dataset: &str) -> String {
    let output = verify(dataset).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    line(&String::from_utf8(output.stdout).unwrap(), "problem").to_owned()
}
