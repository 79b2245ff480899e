//! Raw pixels among JPEGs on a (simulated) CUDA device: the tensors of the host, whoever makes them.

use crate::cuda_load_support::{self, fallbacks, load, on_device, run};
use crate::cuda_support;
use crate::raw_support::{Stored, pictures};
use forebay::decode::DecoderKind;
use forebay::raw::Shape;

const SHAPE: Shape = Shape { height: 48, width: 64, channels: 3 };

#[test]
fn raw_pixels_give_the_tensors_of_the_host() {
    let root = tempfile::tempdir().expect("folder");
    let folder = cuda_load_support::indexed_folder(root.path(), &["420_131x97", "444_131x97", "grey_33x31"]);
    let mut pictures = pictures(6, Some(SHAPE));
    // What begins as a JPEG is pixels all the same.
    pictures[1].pixels[..3].copy_from_slice(b"\xff\xd8\xff");
    for (picture, stored) in pictures.iter().zip([Stored::Npy, Stored::Raw].into_iter().cycle()) {
        let path = folder.join(format!("class0/{}", picture.name.replace('/', "-")));
        std::fs::write(path.with_extension(stored.extension()), picture.bytes(stored)).expect("sample");
    }
    cuda_load_support::index(&folder);
    let open = || load(&folder).raw_shape(SHAPE);
    let (expected, report) = run(open()).expect("on the host");
    assert_eq!((report.images, fallbacks(&report).len()), (2 * 9, 0), "{report}");
    for decoder in [DecoderKind::Auto, DecoderKind::Kernels, DecoderKind::Host] {
        let session = cuda_support::session(5);
        let (found, report) = run(on_device(open()).decoder(decoder)).expect("on the device");
        assert_eq!((found, report.images), (expected.clone(), 2 * 9), "{decoder}: {report}");
        session.finish();
        assert_eq!(session.reports(), Vec::<String>::new());
    }
}
