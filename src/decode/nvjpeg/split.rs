//! Who decodes which image of a batch: the hardware engine or the hybrid of host and device.

/// As many of the engine's cores as the hybrid is reckoned to be worth. With the five cores of an A100 the engine gets five
/// eighths of the bytes, near to DALI's default for it, 0.65. A constant, not the number of threads or what was
/// measured: the two decoders' pixels differ by rounding, and the same seed is to give the same tensors.
const HYBRID_CORES: u64 = 3;

/// Deals the images out by their bytes, which Huffman decoding takes time for. `candidates` gives of each image its
/// bytes and whether the engine takes it; both lists are cleared, then filled in the batch's order.
pub(super) fn split(
    candidates: impl Iterator<Item = (u64, bool)> + Clone,
    cores: u32,
    hardware: &mut Vec<usize>,
    hybrid: &mut Vec<usize>,
) {
    hardware.clear();
    hybrid.clear();
    let cores = u64::from(cores);
    // What only the hybrid takes is its load before anything is dealt.
    let mut hybrid_bytes = candidates.clone().filter(|&(_, engine)| !engine).map(|(bytes, _)| bytes).sum::<u64>();
    let mut hardware_bytes = 0;
    for (image, (bytes, engine)) in candidates.enumerate() {
        // bytes / cores on either side with this image, compared without dividing.
        if engine && (hardware_bytes + bytes) * HYBRID_CORES <= (hybrid_bytes + bytes) * cores {
            hardware.push(image);
            hardware_bytes += bytes;
        } else {
            hybrid.push(image);
            hybrid_bytes += if engine { bytes } else { 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dealt(candidates: &[(u64, bool)], cores: u32) -> (Vec<usize>, Vec<usize>) {
        let (mut hardware, mut hybrid) = (vec![9], vec![9]);
        split(candidates.iter().copied(), cores, &mut hardware, &mut hybrid);
        (hardware, hybrid)
    }

    #[test]
    fn without_an_engine_the_hybrid_takes_all() {
        assert_eq!(dealt(&[(10, true), (20, true)], 0), (vec![], vec![0, 1]));
        assert_eq!(dealt(&[(10, false), (20, false)], 5), (vec![], vec![0, 1]));
        assert_eq!(dealt(&[], 5), (vec![], vec![]));
    }

    #[test]
    fn equal_images_are_dealt_by_cores() {
        let (hardware, hybrid) = dealt(&[(100, true); 256], 5);
        assert_eq!((hardware.len(), hybrid.len()), (160, 96));
        let (hardware, hybrid) = dealt(&[(100, true); 8], 3);
        assert_eq!((hardware.len(), hybrid.len()), (4, 4));
    }

    #[test]
    fn what_only_the_hybrid_takes_counts_as_its_load() {
        let mut images = [(100, true); 16];
        images[8..].fill((100, false));
        let (hardware, hybrid) = dealt(&images, 5);
        assert_eq!(hardware, (0..8).collect::<Vec<_>>());
        assert_eq!(hybrid, (8..16).collect::<Vec<_>>());
    }

    #[test]
    fn every_image_is_dealt_once_and_in_order() {
        let images: Vec<_> = (0..100_u64).map(|i| (1 + i * i % 37, i % 3 > 0)).collect();
        let (hardware, hybrid) = dealt(&images, 5);
        assert!(hardware.is_sorted() && hybrid.is_sorted());
        assert!(hardware.iter().all(|&image| images[image].1));
        let mut all = [hardware, hybrid].concat();
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
    }
}
