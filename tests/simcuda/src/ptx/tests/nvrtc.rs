//! Texts that NVIDIA's compilers made of our own sources, which lie beside them.

use super::*;

#[test]
fn a_reduction_compiled_by_nvcc() {
    let module = Module::parse(include_str!("texts/reduce.ptx")).unwrap();
    let mut ram = Ram::words(&[1.0_f32.to_bits(); 1024]);
    ram.0.resize(4096 + 16, 0);
    let params = params(&[BASE, BASE + 4096]);
    let launch = Launch { grid: [4, 1, 1], block: [256, 1, 1], shared_bytes: 1024, params: &params };
    module.kernel("reduce").unwrap().launch(launch, &mut ram).unwrap();
    let expected = 256.0 * 32.0 + 32.0 + 256.0 + 1.0_f32;
    assert_eq!(ram.words_at(1024, 4), [expected.to_bits(); 4]);
}
