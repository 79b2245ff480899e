//! What the command line says when something is wrong: the thing, the cause, the remedy, and the exit code.

use std::fs;
use std::process::{Command, Stdio};

use crate::cli_support::{fails, forebay, runs};

fn says(command: &mut Command, code: i32, words: &[&str]) {
    let stderr = fails(command, code);
    for word in words {
        assert!(stderr.contains(word), "{command:?} does not say {word:?}: {stderr}");
    }
}

#[test]
fn usage_errors_exit_with_2() {
    says(forebay().arg("datagen"), 2, &["<DIR>"]);
    says(forebay().arg("frobnicate"), 2, &["frobnicate"]);
    says(forebay().args(["decode", "a.jpg", "--region", "1,2,3"]), 2, &["X,Y,W,H"]);
    says(forebay().args(["datagen", "out", "--size", "12"]), 2, &["WIDTHxHEIGHT"]);
}

#[test]
fn parameters_out_of_range_exit_with_2_and_name_what_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    for (option, value) in [
        ("--count", "0"),
        ("--classes", "0"),
        ("--classes", "20000"),
        ("--shard-samples", "0"),
        ("--threads", "0"),
        ("--long-side", "3"),
        ("--size", "0x5"),
        ("--bits-per-pixel", "NaN"),
        ("--bits-per-pixel", "-1"),
        ("--preview", "sheet.gif"),
    ] {
        let argument = format!("{option}={value}");
        let stderr = fails(forebay().arg("datagen").arg(&out).arg(&argument), 2);
        let named = stderr.contains(option) || stderr.contains(value);
        assert!(named && !out.exists(), "{argument}: {stderr}");
    }
}

#[test]
fn data_errors_exit_with_1_and_name_the_file_the_cause_and_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.jpg");
    says(forebay().arg("decode").arg(&missing), 1, &["missing.jpg", "No such file", "help: "]);
    says(forebay().arg("decode").arg(dir.path()), 1, &["directory", "help: "]);
    says(forebay().arg("doctor").arg(&missing), 1, &["missing.jpg", "No such file", "help: "]);

    let text = dir.path().join("notes.JPEG");
    fs::write(&text, "dear diary").unwrap();
    says(forebay().arg("decode").arg(&text), 1, &["notes.JPEG", "help: "]);
    fs::write(&text, "").unwrap();
    says(forebay().arg("decode").arg(&text), 1, &["notes.JPEG", "empty"]);
}

#[test]
fn a_truncated_photo_is_refused_and_no_picture_written() {
    let dir = tempfile::tempdir().unwrap();
    let set = dir.path().join("set");
    runs(forebay().arg("datagen").arg(&set).args(["--count", "1", "--classes", "1", "--long-side", "200"]));
    let photo = set.join("class_0000/00000000.jpg");
    let bytes = fs::read(&photo).unwrap();
    fs::write(&photo, &bytes[..bytes.len() / 2]).unwrap();
    let picture = dir.path().join("picture.png");
    says(forebay().arg("decode").arg(&photo).arg("-o").arg(&picture), 1, &["00000000.jpg", "truncated"]);
    assert!(!picture.exists());
}

#[test]
fn pictures_are_written_by_extension_and_regions_are_cut_out_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let set = dir.path().join("set");
    runs(forebay().arg("datagen").arg(&set).args(["--count", "1", "--classes", "1", "--size", "101x67"]));
    let photo = set.join("class_0000/00000000.jpg");
    let [png, ppm, part] = ["whole.png", "whole.ppm", "part.ppm"].map(|name| dir.path().join(name));
    runs(forebay().arg("decode").arg(&photo).arg("-o").arg(&png));
    runs(forebay().arg("decode").arg(&photo).arg("-o").arg(&ppm));
    runs(forebay().arg("decode").arg(&photo).args(["--region", "13,7,50,40", "-o"]).arg(&part));

    let whole = image::open(&png).unwrap().into_rgb8();
    assert_eq!(whole.dimensions(), (101, 67));
    let ppm_of =
        |width: u32, height: u32, rgb: &[u8]| [format!("P6\n{width} {height}\n255\n").as_bytes(), rgb].concat();
    assert_eq!(fs::read(&ppm).unwrap(), ppm_of(101, 67, &whole));
    let cut = image::imageops::crop_imm(&whole, 13, 7, 50, 40).to_image();
    assert_eq!(fs::read(&part).unwrap(), ppm_of(50, 40, &cut));

    says(forebay().arg("decode").arg(&photo).args(["--region", "60,0,42,10"]), 2, &["--region", "101x67"]);
    says(forebay().arg("decode").arg(&photo).args(["-o", "picture.gif"]), 2, &["picture.gif", ".png or .ppm"]);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = forebay().arg("doctor").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
