//! Texts that NVIDIA's compilers made of our own sources, which lie beside them: `reduce.ptx` by nvcc 13.0 for 9.0,
//! `mixed.ptx` by NVRTC 12.0 for 8.0.

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

/// The module, in memory that begins with its variables.
fn mixed() -> (Module, Ram) {
    loaded(include_str!("texts/mixed.ptx"))
}

/// Appends to memory, aligned; the address.
fn put(ram: &mut Ram, bytes: impl IntoIterator<Item = u8>) -> u64 {
    ram.0.resize(ram.0.len().next_multiple_of(16), 0);
    let address = BASE + ram.0.len() as u64;
    ram.0.extend(bytes);
    address
}

fn launch(module: &Module, name: &str, ram: &mut Ram, grid: u32, block: u32, params: &[u8]) {
    let launch = Launch { grid: [grid, 1, 1], block: [block, 1, 1], shared_bytes: 0, params };
    module.kernel(name).unwrap().launch(launch, ram).unwrap();
}

fn at<const N: usize>(ram: &Ram, address: u64, index: usize) -> [u8; N] {
    ram.0[(address - BASE) as usize + N * index..][..N].try_into().unwrap()
}

#[test]
fn structures_and_variables() {
    let (module, mut ram) = mixed();
    let pixels = put(&mut ram, 0..200);
    let out = put(&mut ram, [0; 400]);
    let affine = [0.0078125_f32, 0.017, 1e-4, -1.0, -2.1179, 3.0];
    let mut params = params(&[pixels, out]);
    params.extend(affine.iter().flat_map(|value| value.to_le_bytes()));
    params.extend(200_u32.to_le_bytes());
    launch(&module, "normalise", &mut ram, 2, 128, &params);
    for i in 0..200 {
        let expected = (i as f32).mul_add(affine[i % 3], affine[3 + i % 3]);
        assert_eq!(u64::from(u16::from_le_bytes(at(&ram, out, i))), convert::nearest_half(expected.into()), "{i}");
    }
    // Fifty rounds of the order's sum, upon what the variable held at first.
    let counter = module.variables().iter().position(|variable| variable.name == "counter").unwrap();
    assert_eq!(module.variables()[counter].initial, 7_u32.to_le_bytes());
    assert!(ram.0.chunks(4).any(|word| word == (7_u32 + 50 * 6).to_le_bytes()));
}

#[test]
fn arrays_in_local_memory_and_switches() {
    let (module, mut ram) = mixed();
    let n = 13;
    let out = put(&mut ram, [0; 160]);
    let mut params = params(&[out]);
    params.extend((n as u32).to_le_bytes());
    launch(&module, "local_array", &mut ram, 1, 40, &params);
    let weights = [1, 2, 4, 8, 16, 32, 64, 128];
    for thread in 0..40_i32 {
        let sum = (0..n).map(|i| ((i * 7) & 15) * n + thread).sum::<i32>();
        let expected = match thread % 6 {
            0 => sum + 1,
            1 => sum ^ 0x55,
            2 => sum * 3,
            3 => -sum,
            4 => sum + weights[(sum & 7) as usize],
            _ => ((sum as u32).reverse_bits() >> 16) as i32,
        };
        assert_eq!(i32::from_le_bytes(at(&ram, out, thread as usize)), expected, "{thread}");
    }
}

#[test]
fn groups_of_lanes() {
    let (module, mut ram) = mixed();
    let key = |thread: u32| thread * thread % 7;
    let keys = put(&mut ram, (0..64).flat_map(|thread| key(thread).to_le_bytes()));
    let sums = put(&mut ram, [0; 28]);
    launch(&module, "groups", &mut ram, 1, 64, &params(&[keys, sums]));
    for group in 0..7 {
        let expected = (0..64).filter(|thread| key(*thread) == group).sum::<u32>();
        assert_eq!(u32::from_le_bytes(at(&ram, sums, group as usize)), expected, "{group}");
    }
}

#[test]
fn long_quotients() {
    let (module, mut ram) = mixed();
    let a = |thread: u64| thread.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (thread % 50);
    let b = |thread: u64| 1 + (thread as i64 - 30) * (thread as i64 - 29) * 1_234_567;
    let first = put(&mut ram, (0..64).flat_map(|thread| a(thread).to_le_bytes()));
    let second = put(&mut ram, (0..64).flat_map(|thread| b(thread).to_le_bytes()));
    let out = put(&mut ram, [0; 512]);
    launch(&module, "quotients", &mut ram, 1, 64, &params(&[first, second, out]));
    for thread in 0..64 {
        let (x, y) = (a(thread), b(thread));
        let ratio = x as f64 / y as f64;
        let expected = (x / (y | 1) as u64)
            .wrapping_add(((x as i64) % (y | 1)) as u64)
            .wrapping_add(((u128::from(x) * u128::from(y as u64)) >> 64) as u64)
            .wrapping_add(x.count_ones().into())
            .wrapping_add(ratio.to_bits())
            .wrapping_add((ratio.min(1000.0).round_ties_even() as i32 as u32).into());
        assert_eq!(u64::from_le_bytes(at(&ram, out, thread as usize)), expected, "{thread}");
    }
}
