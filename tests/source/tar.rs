//! Promises of tar shards (row 23 of the fault table): every damage is an error that names shard and place,
//! never a silent end; nothing in an archive makes the reader panic, hang or allocate what it declares.

use std::fs;
use std::path::{Path, PathBuf};

use forebay::source::{Extent, Folder, Source, TarShards, UNLABELLED, open};
use forebay::{Error, ErrorKind};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

fn header(size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_entry_type(EntryType::Regular);
    header
}

/// An archive of these files, with its end marker.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, data) in files {
        builder.append_data(&mut header(data.len() as u64), name, *data).unwrap();
    }
    builder.into_inner().unwrap()
}

/// One header block as it is, with its checksum made right, and then data, padded.
fn raw(name: &[u8], kind: u8, size_field: &[u8; 12], data: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name);
    block[124..136].copy_from_slice(size_field);
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar  \0");
    seal(&mut block);
    block.extend_from_slice(data);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

fn octal(size: usize) -> [u8; 12] {
    format!("{size:011o}\0").into_bytes().try_into().unwrap()
}

fn seal(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block[..512].iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut text = String::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut len = rest + 1;
        while len != rest + len.to_string().len() {
            len += 1;
        }
        text += &format!("{len} {key}={value}\n");
    }
    raw(b"pax", b'x', &octal(text.len()), text.as_bytes())
}

const END: [u8; 1024] = [0; 1024];

struct Shard {
    _dir: TempDir,
    path: PathBuf,
}

fn shard(bytes: &[u8]) -> Shard {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shard.tar");
    fs::write(&path, bytes).unwrap();
    Shard { _dir: dir, path }
}

fn scan(bytes: &[u8]) -> Result<TarShards, Error> {
    TarShards::open(&[shard(bytes).path])
}

fn keys(source: &dyn Source) -> Vec<String> {
    (0..source.len())
        .map(|sample| {
            let mut key = String::new();
            source.key(sample, &mut key).unwrap();
            key
        })
        .collect()
}

fn labels(source: &dyn Source) -> Vec<i64> {
    (0..source.len()).map(|sample| source.label(sample).unwrap()).collect()
}

/// The bytes of a sample, read by its extent.
fn bytes(source: &dyn Source, sample: u64) -> Vec<u8> {
    let mut path = PathBuf::new();
    match source.extent(sample).unwrap() {
        Extent::Object(object) => {
            source.object_path(object, &mut path).unwrap();
            fs::read(path).unwrap()
        }
        Extent::Range { object, offset, len_bytes } => {
            source.object_path(object, &mut path).unwrap();
            fs::read(path).unwrap()[offset as usize..][..len_bytes as usize].to_vec()
        }
    }
}

/// The error of a bad archive, which must name the shard, the place and a remedy.
fn refused(archive: &[u8]) -> Error {
    let error = scan(archive).err().expect("the archive is bad");
    let text = error.to_string();
    assert!(text.contains("shard.tar") && text.contains("at byte") && error.remedy().is_some(), "{text}");
    error
}

fn note(source: &dyn Source, part: &str) -> bool {
    source.notes().iter().any(|note| note.contains(part))
}

#[test]
fn samples_are_grouped_labelled_and_located() {
    let files: [(&str, &[u8]); 9] = [
        ("a/000.jpg", b"image 0"),
        ("a/000.cls", b"7\n"),
        ("a/001.json", br#"{"label": 3, "caption": "x"}"#),
        ("a/001.PNG", b"image 1"),
        ("a/002.webp", b"image 2"),
        ("a/003.txt", b"no image"),
        ("a/004.mask.png", b"mask"),
        ("a/004.jpeg", b"image 4"),
        ("README", b"read me"),
    ];
    let shard = shard(&archive(&files));
    let source = TarShards::open(&[shard.path]).unwrap();
    assert_eq!(keys(&source), ["a/000", "a/001", "a/002", "a/004"]);
    assert_eq!(labels(&source), [7, 3, UNLABELLED, UNLABELLED]);
    for (sample, image) in [(0, "image 0"), (1, "image 1"), (2, "image 2"), (3, "image 4")] {
        assert_eq!(bytes(&source, sample), image.as_bytes());
    }
    assert!(note(&source, "keys without a .jpg") && note(&source, "a/003"));
    assert!(note(&source, "without a name before the extension left out: 1, such as README"));
    assert!(note(&source, "further images of a key"));
    assert!(source.extent(4).is_err() && source.label(4).is_err() && source.key(4, &mut String::new()).is_err());
}

#[test]
fn long_names_and_sizes_of_gnu_and_pax_are_understood() {
    let long = format!("{}x.jpg", "directory/".repeat(30));
    // The tar crate writes GNU long names.
    let source_bytes = archive(&[(&long, b"gnu")]);
    let shard_gnu = shard(&source_bytes);
    let source = TarShards::open(&[shard_gnu.path]).unwrap();
    assert_eq!(keys(&source), [long.strip_suffix(".jpg").unwrap()]);
    assert_eq!(bytes(&source, 0), b"gnu");

    // PAX: the header's own name and size are wrong and must not be used.
    let mut pax_bytes = pax(&[("mtime", "1.5"), ("path", &long), ("size", "3")]);
    pax_bytes.extend(raw(b"short.bin", b'0', &octal(0), b"pax"));
    // Base-256 size, and a POSIX prefix.
    pax_bytes.extend(raw(b"y.jpg", b'0', b"\x80\0\0\0\0\0\0\0\0\0\0\x04", b"b256"));
    let mut prefixed = raw(b"z.jpg", b'0', &octal(6), b"prefix");
    prefixed[257..265].copy_from_slice(b"ustar\x0000");
    prefixed[345..348].copy_from_slice(b"p/q");
    seal(&mut prefixed);
    pax_bytes.extend(prefixed);
    pax_bytes.extend(END);
    let shard_pax = shard(&pax_bytes);
    let source = TarShards::open(&[shard_pax.path]).unwrap();
    assert_eq!(keys(&source), [long.strip_suffix(".jpg").unwrap(), "y", "p/q/z"]);
    assert_eq!([0, 1, 2].map(|sample| bytes(&source, sample)), [&b"pax"[..], b"b256", b"prefix"]);
}

#[test]
fn links_folders_and_devices_are_skipped_and_counted() {
    let mut archive = Vec::new();
    archive.extend(raw(b"d/", b'5', &octal(0), b""));
    archive.extend(raw(b"d/hard.jpg", b'1', &octal(700), b""));
    archive.extend(raw(b"d/soft.jpg", b'2', &octal(0), b""));
    archive.extend(raw(b"d/pipe.jpg", b'6', &octal(0), b""));
    archive.extend(raw(b"volume", b'V', &octal(5), b"label"));
    archive.extend(raw(b"d/real.jpg", b'0', &octal(4), b"real"));
    archive.extend(END);
    let source = scan(&archive).unwrap();
    assert_eq!(keys(&source), ["d/real"]);
    assert!(note(&source, "links left out (an archive's links are never followed): 2, such as d/hard.jpg"));
    assert!(note(&source, "entries that are no files left out: 2"));
}

#[test]
fn sparse_images_are_errors_of_their_sample() {
    // Old GNU: a map that goes on in one more block; 600 bytes stored.
    let mut sparse = raw(b"a.jpg", b'S', &octal(600), b"");
    sparse[482] = 1;
    seal(&mut sparse);
    sparse.extend([0; 512]);
    sparse.extend([1; 1024]);
    // PAX 1.0, whose header has a made-up name.
    sparse.extend(pax(&[("GNU.sparse.major", "1"), ("GNU.sparse.name", "b.jpg"), ("GNU.sparse.realsize", "9999")]));
    sparse.extend(raw(b"GNUSparseFile.1/b.jpg", b'0', &octal(512), &[2; 512]));
    sparse.extend(raw(b"c.jpg", b'0', &octal(5), b"whole"));
    sparse.extend(END);
    let shard = shard(&sparse);
    let source = TarShards::open(&[shard.path]).unwrap();
    assert_eq!(keys(&source), ["a", "b", "c"]);
    assert_eq!(bytes(&source, 2), b"whole");
    for (sample, key) in [(0, "a"), (1, "b")] {
        let error = source.extent(sample).unwrap_err();
        assert_eq!((error.kind(), error.sample()), (ErrorKind::Unsupported, Some(key)));
        assert!(error.to_string().contains("sparse"));
    }
    assert!(note(&source, "images stored sparsely"));
}

#[test]
fn names_are_keys_and_never_opened() {
    let mut bytes = Vec::new();
    for name in [&b"../../etc/passwd.jpg"[..], b"/etc/shadow.jpg", b"./dot.jpg", b"\xff\xfe.jpg", b"con\n\x1b[31m.jpg"]
    {
        bytes.extend(raw(name, b'0', &octal(1), b"x"));
    }
    bytes.extend(END);
    let source = scan(&bytes).unwrap();
    assert_eq!(keys(&source), ["../../etc/passwd", "/etc/shadow", "dot", "\u{fffd}\u{fffd}", "con\n\x1b[31m"]);
    let mut path = PathBuf::new();
    source.object_path(0, &mut path).unwrap();
    assert!(path.ends_with("shard.tar"));
    assert!(source.object_path(1, &mut path).is_err());
}

#[test]
fn a_bad_checksum_names_the_place() {
    let good = archive(&[("a.jpg", b"1"), ("b.jpg", b"2")]);
    for at in [1024, 1024 + 124, 1024 + 300] {
        let mut bad = good.clone();
        bad[at] ^= 4;
        let error = refused(&bad);
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("at byte 1024") && error.to_string().contains("checksum"), "{error}");
    }
}

#[test]
fn lying_sizes_are_found() {
    let whole = |size: &[u8; 12], data: &[u8]| [raw(b"a.jpg", b'0', size, data), END.to_vec()].concat();
    for size in [
        &octal(1 << 20),
        b"77777777777\0",
        b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let error = refused(&whole(size, b"data"));
        assert_eq!(error.kind(), ErrorKind::Truncated, "{error}");
        assert!(error.to_string().contains("a.jpg"), "{error}");
    }
    // Not a size at all: over 64 bits, negative, letters.
    for size in
        [b"\x80\x01\0\0\0\0\0\0\0\0\0\0", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"12abc\0\0\0\0\0\0\0"]
    {
        assert_eq!(refused(&whole(size, b"data")).kind(), ErrorKind::Corrupt);
    }
    // Too small: the next header is looked for inside the data.
    assert_eq!(refused(&whole(&octal(512), &[7; 1024])).kind(), ErrorKind::Corrupt);
    let sized = |size| [pax(&[("size", size)]), raw(b"a.jpg", b'0', &octal(1), b"x"), END.to_vec()].concat();
    assert_eq!(refused(&sized("18446744073709551615")).kind(), ErrorKind::Truncated);
    for bad in ["-1", "99999999999999999999", "", "+1"] {
        assert_eq!(refused(&sized(bad)).kind(), ErrorKind::Corrupt, "{bad:?}");
    }
}

#[test]
fn declared_lengths_of_names_and_records_are_limited() {
    let declared = |kind| [raw(b"x", kind, b"77777777777\0", b""), vec![0; 1 << 20]].concat();
    for kind in [b'L', b'K', b'x', b'g'] {
        assert_eq!(refused(&declared(kind)).kind(), ErrorKind::LimitExceeded);
    }
    for records in
        ["5 a=b\n", "7 a=b\n", "6 ab c\n", "0 a=b\n", "99 a=b\n", "x", "18446744073709551616 a=b\n", "6 a=b "]
    {
        let bytes = [
            raw(b"x", b'x', &octal(records.len()), records.as_bytes()),
            raw(b"a.jpg", b'0', &octal(1), b"x"),
            END.to_vec(),
        ];
        assert_eq!(refused(&bytes.concat()).kind(), ErrorKind::Corrupt, "{records:?}");
    }
}

#[test]
fn files_twice_in_a_sample_are_refused_and_repeated_keys_noted() {
    let error = refused(&archive(&[("a.jpg", b"1"), ("a.cls", b"1"), ("a.JPG", b"2")]));
    assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("a.JPG"), "{error}");
    let source = scan(&archive(&[("a.jpg", b"1"), ("b.jpg", b"2"), ("a.jpg", b"3")])).unwrap();
    assert_eq!(keys(&source), ["a", "b", "a"]);
    assert!(note(&source, "samples that repeat a key of their shard, kept: 1"));
}

#[test]
fn unreadable_labels_are_errors_of_their_sample() {
    let long = [b'1'; 100];
    let source = scan(&archive(&[
        ("a.jpg", b"1"),
        ("a.cls", b"dog"),
        ("b.jpg", b"2"),
        ("b.json", b"{\"label\": "),
        ("c.jpg", b"3"),
        ("c.cls", &long),
        ("d.jpg", b"4"),
        ("d.cls", b" 4 "),
        ("e.jpg", b"5"),
        ("e.json", b"{\"label\": \"dog\"}"),
        ("f.jpg", b"6"),
        ("f.cls", b""),
    ]));
    let source = source.unwrap();
    for (sample, key) in [(0, "a"), (1, "b"), (2, "c"), (5, "f")] {
        let error = source.label(sample).unwrap_err();
        assert_eq!((error.kind(), error.sample()), (ErrorKind::Corrupt, Some(key)));
    }
    assert_eq!((source.label(3).unwrap(), source.label(4).unwrap()), (4, UNLABELLED));
    assert!(note(&source, "labels that are no integer, an error when they are read: 4"));
    assert!(note(&source, "labels in .json that are no integer, taken as no label: 1"));
}

#[test]
fn an_archive_cut_anywhere_is_an_error_or_a_note() {
    let files: Vec<(String, Vec<u8>)> = (0..4u8)
        .flat_map(|n| [(format!("{n}.jpg"), vec![n; 700]), (format!("{n}.cls"), n.to_string().into_bytes())])
        .collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, data)| (name.as_str(), data.as_slice())).collect();
    let whole = archive(&files);
    // Ends of entries: 512 + 1024 of an image, 512 + 512 of a label, in turn.
    let ends: Vec<usize> = (1..=8).map(|entry| entry / 2 * 2560 + entry % 2 * 1536).collect();
    let data_end = *ends.last().unwrap();
    assert_eq!(whole.len(), data_end + 1024);
    let odd =
        (0..whole.len()).step_by(37).chain((0..=whole.len() / 512).flat_map(|block| [block * 512, block * 512 + 1]));
    for cut in odd.filter(|&cut| cut < whole.len()) {
        let result = scan(&whole[..cut]);
        if cut >= data_end + 512 {
            // The marker's second block is missing or short.
            assert_eq!(result.unwrap().len(), 4, "cut at {cut}");
        } else if let Some(entries) = ends.iter().position(|&end| end == cut) {
            let source = result.unwrap();
            assert_eq!(source.len(), entries as u64 / 2 + 1, "cut at {cut}");
            assert!(note(&source, "without an end marker"), "cut at {cut}");
        } else {
            assert!(result.is_err(), "cut at {cut} of {} is silent", whole.len());
            assert_eq!(refused(&whole[..cut]).kind(), ErrorKind::Truncated, "cut at {cut}");
        }
    }
    let extended = [pax(&[("path", "a.jpg")]), raw(b"a.jpg", b'0', &octal(1), b"x")].concat();
    assert_eq!(refused(&extended[..1024]).kind(), ErrorKind::Truncated);
}

#[test]
fn what_follows_an_end_marker_is_not_passed_over() {
    let one = archive(&[("a.jpg", b"1")]);
    let joined = [one.clone(), archive(&[("b.jpg", b"2")])].concat();
    assert_eq!(refused(&joined).kind(), ErrorKind::Corrupt);
    // A header overwritten with zeros.
    let mut zeroed = archive(&[("a.jpg", b"1"), ("b.jpg", b"2")]);
    zeroed[1024..1536].fill(0);
    assert!(refused(&zeroed).to_string().contains("at byte 1024"));
    // GNU tar fills up to 10 KiB.
    let filled = [one.clone(), vec![0; 9000]].concat();
    assert!(scan(&filled).unwrap().notes().is_empty());
    assert!(note(&scan(&[one, vec![0; 2 << 20]].concat()).unwrap(), "behind their end marker"));
}

#[test]
fn what_is_no_tar_is_named() {
    assert_eq!(refused(b"").kind(), ErrorKind::Truncated);
    assert_eq!(refused(&[b'x'; 4096]).kind(), ErrorKind::Corrupt);
    assert!(refused(&[b"\x1f\x8b".to_vec(), vec![9; 1000]].concat()).to_string().contains("gzip"));
    assert_eq!(scan(&END).err().unwrap().kind(), ErrorKind::EmptyDataset);
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe.tar");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert_eq!(open(&pipe).err().unwrap().kind(), ErrorKind::Unsupported);
}

#[test]
fn shards_open_by_folder_braces_and_wildcards_in_order() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..30 {
        let name = format!("{number}.jpg");
        fs::write(dir.path().join(format!("train-{number:03}.tar")), archive(&[(&name, b"x")])).unwrap();
    }
    let all: Vec<String> = (0..30).map(|number| number.to_string()).collect();
    let in_dir = |pattern: &str| dir.path().join(pattern);
    for spec in
        ["", "train-{000..029}.tar", "train-*.tar", "train-{000..009}.tar", "*-0{0,1,2}?.tar", "train-{029..000}.tar"]
    {
        let source = open(in_dir(spec)).unwrap();
        let expected = match spec {
            "train-{000..009}.tar" => all[..10].to_vec(),
            "train-{029..000}.tar" => all.iter().rev().cloned().collect(),
            _ => all.clone(),
        };
        assert_eq!(keys(&*source), expected, "{spec}");
    }
    let missing = open(in_dir("train-{028..031}.tar")).err().unwrap();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().contains("train-030.tar"), "{missing}");
    assert_eq!(open(in_dir("none-*.tar")).err().unwrap().kind(), ErrorKind::NotFound);
    // Of several bad shards the first is named, whichever thread is first.
    for bad in [3, 7, 19] {
        fs::write(in_dir(&format!("train-{bad:03}.tar")), b"bad").unwrap();
    }
    for _ in 0..20 {
        assert!(open(dir.path()).err().unwrap().to_string().contains("train-003.tar"));
    }
}

#[test]
fn a_folder_and_a_tar_of_the_same_samples_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("images");
    let mut files = Vec::new();
    for (class, name) in ["ant", "ant-lion", "bee/queen", "bee", "cat", "zebra"].iter().enumerate() {
        for number in [0, 1, 2, 10, 11] {
            files.push((format!("{name}/{class}_{number}.jpg"), format!("{name} {number}").into_bytes()));
        }
    }
    for (name, data) in &files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, data).unwrap();
    }
    files.sort();
    let classes = ["ant", "ant-lion", "bee", "cat", "zebra"];
    let mut packed = Vec::new();
    for (name, data) in &files {
        let class = classes.iter().position(|class| *class == name.split('/').next().unwrap()).unwrap();
        packed.push((name.clone(), data.clone()));
        packed.push((name.replace(".jpg", ".cls"), class.to_string().into_bytes()));
    }
    let packed: Vec<(&str, &[u8])> = packed.iter().map(|(name, data)| (name.as_str(), data.as_slice())).collect();
    let shard = shard(&archive(&packed));
    let (folder, shards) = (Folder::open(&root).unwrap(), TarShards::open(&[shard.path]).unwrap());
    assert_eq!(folder.classes(), classes);
    assert_eq!(keys(&folder), keys(&shards));
    assert_eq!(labels(&folder), labels(&shards));
    for sample in 0..folder.len() {
        assert_eq!(bytes(&folder, sample), bytes(&shards, sample));
    }
}

/// Thousands of damaged archives: an error or samples inside the file, and nothing else.
#[test]
fn damaged_archives_never_panic_hang_or_point_outside() {
    let mut good = archive(&[("a.jpg", &[1; 900]), ("a.cls", b"1"), ("b.jpg", &[2; 30]), ("b.json", b"{\"label\":2}")]);
    good.truncate(good.len() - 1024);
    good.extend(pax(&[("path", "c/d.jpg"), ("size", "5")]));
    good.extend(raw(b"c.jpg", b'0', &octal(5), b"image"));
    good.extend(raw(b"././@LongLink", b'L', &octal(300), &[b'n'; 300]));
    good.extend(raw(b"n.jpg", b'0', &octal(5), b"image"));
    good.extend(raw(b"s.jpg", b'S', &octal(5), b"image"));
    good.extend(END);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shard.tar");
    let mut random = 0x2545_F491_4F6C_DD1Du64;
    let mut next = move |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    let mut opened = 0;
    for round in 0..6000 {
        let mut bad = good.clone();
        for _ in 0..=next(4) {
            let at = next(bad.len());
            bad[at] = if next(2) == 0 { bad[at] ^ 1 << next(8) } else { next(256) as u8 };
        }
        // Half of them get past the checksums, to reach what lies behind.
        if round % 2 == 0 {
            bad.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar").for_each(seal);
        }
        if round % 7 == 0 {
            bad.truncate(next(bad.len()));
        }
        if round % 50 == 0 {
            bad = (0..next(5000)).map(|_| next(256) as u8).collect();
        }
        // A new file: some file systems flush one that is written over.
        let _ = fs::remove_file(&path);
        fs::write(&path, &bad).unwrap();
        let Ok(source) = TarShards::open(std::slice::from_ref(&path)) else { continue };
        opened += 1;
        for sample in 0..source.len() {
            if let Ok(Extent::Range { offset, len_bytes, .. }) = source.extent(sample) {
                assert!(offset + len_bytes <= bad.len() as u64);
            }
            let _ = source.label(sample);
            source.key(sample, &mut String::new()).unwrap();
        }
    }
    assert!(opened > 500, "only {opened} of the archives could be opened: the test reaches too little");
}

#[test]
fn an_unreadable_shard_is_named() {
    let error = open(Path::new("/nonexistent/x.tar")).err().unwrap();
    assert!(error.kind() == ErrorKind::NotFound && error.to_string().contains("/nonexistent/x.tar"), "{error}");
}
