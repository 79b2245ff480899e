//! What the kernels are given for some images, made from files, and the kernels run one after the other on it.

use simcuda::ptx::Stats;

use super::machine::Machine;
use crate::decode::kernels::abi::{self, Affine, Axis, Image, Plane, Segment};
use crate::decode::kernels::shape::upsampling;
use crate::jpeg::reference::{self, Geometry, Layout};
use crate::jpeg::{ColourModel, Decoder, EntryPoint, EntryPoints, Grain, Header};
use crate::plan::{self, Augment, SamplePlan};

/// Images, and the sizes of the buffers that they need.
#[derive(Default)]
pub struct Wave {
    pub images: Vec<Image>,
    pub plans: Vec<SamplePlan>,
    /// The tables, segments and files.
    pub upload: Vec<u8>,
    /// Where the last file starts in `upload`.
    pub file: usize,
    pub words: usize,
    pub blocks: usize,
    pub sample_bytes: usize,
    pub tap_words: usize,
    pub output_bytes: usize,
}

/// Where a wave's buffers lie on a device.
pub struct Buffers {
    pub upload: u64,
    pub images: u64,
    pub words: u64,
    pub coefficients: u64,
    pub status: u64,
    pub samples: u64,
    pub taps: u64,
    pub output: u64,
}

impl Wave {
    /// Of one image.
    pub fn of(file: &[u8], plan: &SamplePlan, grain: Grain) -> Self {
        let mut wave = Self::default();
        wave.push(file, plan, grain);
        wave
    }

    /// Adds what a plan needs of a file.
    pub fn push(&mut self, file: &[u8], plan: &SamplePlan, grain: Grain) {
        let header = Header::parse(file).unwrap();
        let geometry = Geometry::new(&header, plan.view());
        let mut image = Image { source: abi::SOURCE_BITS, ..Image::default() };
        self.add_frame(&mut image, plan);
        self.add_planes(&mut image, &header, &geometry);
        self.add_tables(&mut image, &header);
        self.add_segments(&mut image, file, &header, &geometry, grain);
        self.images.push(image);
        self.plans.push(*plan);
    }

    /// The plan's side of an image, its place in the output included.
    pub fn add_frame(&mut self, image: &mut Image, plan: &SamplePlan) {
        let region = plan.region();
        (image.region_x, image.region_y) = (region.x, region.y);
        (image.region_width, image.region_height) = (region.width, region.height);
        image.x = self.axis(plan.x(), plan.x().flip);
        image.y = self.axis(plan.y(), false);
        image.transposed = plan.is_transposed().into();
        image.rows_reversed = plan.y().flip.into();
        image.tile = tile(plan.x());
        image.output = self.output_bytes as u64;
        self.output_bytes += plan.output_bytes().next_multiple_of(16);
    }

    /// An axis, and room for its tables.
    pub fn axis(&mut self, plan: &plan::Axis, reversed: bool) -> Axis {
        let axis = axis(plan, reversed, self.tap_words);
        self.tap_words += axis.output_len.next_multiple_of(32) as usize * (2 + axis.taps_max as usize);
        axis
    }

    fn add_planes(&mut self, image: &mut Image, header: &Header, geometry: &Geometry) {
        image.plane_count = geometry.planes().len() as u32;
        image.colour = match header.colour {
            ColourModel::YCbCr => abi::COLOUR_YCBCR,
            ColourModel::Grey => abi::COLOUR_GREY,
            _ => abi::COLOUR_RGB,
        };
        let is_alone = image.plane_count == 1;
        for (to, plane) in image.planes.iter_mut().zip(geometry.planes()) {
            let (columns, rows) = (&plane.columns, &plane.rows);
            let (left, top) = (columns.start / 8, rows.start / 8);
            let (across, down) = (columns.end.div_ceil(8) - left, rows.end.div_ceil(8) - top);
            *to = Plane {
                samples: self.sample_bytes as u64,
                blocks: self.blocks as u32,
                block_column: left as u16,
                block_row: top as u16,
                block_columns: across as u16,
                block_rows: down as u16,
                width: plane.width as u16,
                height: plane.height as u16,
                h: if is_alone { 1 } else { plane.h as u8 },
                v: if is_alone { 1 } else { plane.v as u8 },
                upsampling: upsampling(plane.upsampling),
                expansion_x: plane.expansion.0 as u8,
                expansion_y: plane.expansion.1 as u8,
                ..Plane::default()
            };
            image.block_count += to.h * to.v;
            self.sample_bytes += 64 * across * down;
            self.blocks += across * down;
        }
    }

    fn add_tables(&mut self, image: &mut Image, header: &Header) {
        let huffman = reference::huffman(header);
        let count = huffman.len();
        self.upload.resize(self.upload.len().next_multiple_of(16), 0);
        image.tables = self.upload.len() as u32;
        (image.quant_count, image.table_count) = (count as u8, 2 * count as u8);
        for (i, plane) in image.planes[..count].iter_mut().enumerate() {
            (plane.quant, plane.dc, plane.ac) = (i as u8, 2 * i as u8, 2 * i as u8 + 1);
            self.upload.extend_from_slice(bytemuck::cast_slice(&reference::quant(header, i)));
        }
        for spec in huffman.iter().flatten() {
            self.upload.extend_from_slice(&spec.counts);
            self.upload.extend_from_slice(&spec.symbols);
        }
    }

    fn add_segments(&mut self, image: &mut Image, file: &[u8], header: &Header, geometry: &Geometry, grain: Grain) {
        let mut entries = Vec::new();
        let facts = Decoder::new().index(file, header, grain, &mut entries).unwrap();
        let entries: Vec<EntryPoint> = EntryPoints::new(&entries).iter(&facts).map(Result::unwrap).collect();
        let layout = Layout::new(geometry, &header.scan);
        self.upload.resize(self.upload.len().next_multiple_of(16), 0);
        self.file = self.upload.len();
        let base = self.file as u32;
        self.upload.extend_from_slice(file);
        self.upload.resize(self.upload.len().next_multiple_of(16), 0);
        image.segments = self.upload.len() as u32;
        for (i, entry) in entries.iter().enumerate() {
            let next = entries.get(i + 1);
            let row_end =
                next.filter(|next| next.row == entry.row).map_or(layout.mcus_per_row as u32, |next| next.column);
            let is_needed = layout.rows.contains(&(entry.row as usize))
                && (entry.column as usize) < layout.columns.end
                && (row_end as usize) > layout.columns.start;
            if !is_needed {
                continue;
            }
            let end = row_end.min(layout.columns.end as u32);
            let mut segment = self.segment(entry, next, header, base + header.scan_offset as u32, facts.scan_bytes);
            if end < row_end {
                segment.end = abi::END_UNCHECKED;
            }
            segment.mcus = (end - entry.column) as u16;
            self.upload.extend_from_slice(bytemuck::bytes_of(&segment));
            image.segment_count += 1;
        }
    }

    fn segment(
        &mut self,
        entry: &EntryPoint,
        next: Option<&EntryPoint>,
        header: &Header,
        scan: u32,
        scan_bytes: u64,
    ) -> Segment {
        let layout = Layout::new(&reference::whole(header), &header.scan);
        let interval = u64::from(header.tables.restart_interval);
        let mcu = |entry: &EntryPoint| u64::from(entry.row) * layout.mcus_per_row as u64 + u64::from(entry.column);
        let marker = |entry: &EntryPoint| {
            let begins = interval > 0 && mcu(entry) > 0 && mcu(entry) % interval == 0;
            begins.then(|| abi::MARKER + ((mcu(entry) / interval - 1) % 8) as u8)
        };
        let (stop, end) = match next.map(|next| (next, marker(next))) {
            None => (scan_bytes, abi::END_UNCHECKED),
            Some((next, Some(marker))) => (next.bit / 8 - 2, marker),
            Some((next, None)) => (next.bit.div_ceil(8), ((8 - next.bit % 8) % 8) as u8),
        };
        let start = entry.bit / 8;
        let bytes = (stop - start) as u32;
        let words = self.words as u32;
        // And one that nobody writes.
        self.words += 3 + bytes.div_ceil(4) as usize + 1;
        Segment {
            byte: scan + start as u32,
            bytes,
            words,
            row: entry.row as u16,
            column: entry.column as u16,
            mcus: 0,
            skip: marker(entry).unwrap_or((entry.bit % 8) as u8),
            end,
            dc: entry.dc,
            next_dc: next.map_or([0; 3], |next| next.dc),
        }
    }

    /// The segments of its first image.
    pub fn segments(&self) -> Vec<Segment> {
        let Image { segments, segment_count, .. } = self.images[0];
        let len_bytes = segment_count as usize * size_of::<Segment>();
        bytemuck::pod_collect_to_vec(&self.upload[segments as usize..][..len_bytes])
    }

    /// Allocates its buffers and uploads what there is.
    pub fn buffers(&self, machine: &mut Machine) -> Buffers {
        Buffers {
            upload: machine.upload(&self.upload),
            images: machine.upload(bytemuck::cast_slice(&self.images)),
            words: machine.alloc(4 * self.words),
            coefficients: machine.zeroed(128 * self.blocks),
            status: machine.zeroed(4 * self.images.len()),
            samples: machine.alloc(self.sample_bytes),
            taps: machine.alloc(4 * self.tap_words),
            output: machine.alloc(self.output_bytes),
        }
    }

    /// All kernels, one after the other.
    pub fn run(&self, machine: &mut Machine, at: &Buffers, augment: &Augment) -> Result<(), String> {
        self.destuff(machine, at)?;
        self.entropy(machine, at)?;
        self.idct(machine, at)?;
        self.taps(machine, at)?;
        self.resize(machine, at, augment)?;
        Ok(())
    }

    pub fn destuff(&self, machine: &mut Machine, at: &Buffers) -> Result<Stats, String> {
        let x = self.most(|image| image.segment_count).div_ceil(8);
        machine.launch(
            "forebay_destuff",
            [x, self.images.len() as u32, 1],
            abi::DESTUFF_THREADS,
            &params(&[at.upload, at.images, at.words]),
        )
    }

    pub fn entropy(&self, machine: &mut Machine, at: &Buffers) -> Result<Stats, String> {
        let x = self.most(|image| image.segment_count).div_ceil(abi::ENTROPY_THREADS);
        let params = params(&[at.upload, at.images, at.words, at.coefficients, at.status]);
        machine.launch("forebay_entropy", [x, self.images.len() as u32, 1], abi::ENTROPY_THREADS, &params)
    }

    pub fn idct(&self, machine: &mut Machine, at: &Buffers) -> Result<Stats, String> {
        let blocks = |plane: &Plane| u32::from(plane.block_columns) * u32::from(plane.block_rows);
        let x = self.most(|image| image.planes.iter().map(blocks).max().unwrap_or(0)).div_ceil(32);
        let params = params(&[at.upload, at.images, at.coefficients, at.samples]);
        machine.launch("forebay_idct", [x, 3, self.images.len() as u32], abi::IDCT_THREADS, &params)
    }

    pub fn taps(&self, machine: &mut Machine, at: &Buffers) -> Result<Stats, String> {
        let params = params(&[at.images, at.taps]);
        machine.launch("forebay_taps", [2, self.images.len() as u32, 1], abi::TAPS_THREADS, &params)
    }

    pub fn resize(&self, machine: &mut Machine, at: &Buffers, augment: &Augment) -> Result<Stats, String> {
        let name = match augment.dtype() {
            plan::DType::U8 => "forebay_resize_u8",
            plan::DType::F16 => "forebay_resize_f16",
            plan::DType::BF16 => "forebay_resize_bf16",
            plan::DType::F32 => "forebay_resize_f32",
        };
        let of = augment.affine();
        let affine = Affine { factor: of.map(|(factor, _)| factor), addend: of.map(|(_, addend)| addend) };
        let layout = match augment.layout() {
            plan::Layout::Nchw => abi::LAYOUT_NCHW,
            plan::Layout::Nhwc => abi::LAYOUT_NHWC,
        };
        let mut params = params(&[at.upload, at.images, at.samples, at.taps, at.output]);
        params.extend_from_slice(bytemuck::bytes_of(&affine));
        params.extend_from_slice(bytemuck::bytes_of(&layout));
        let x = self.most(|image| image.y.output_len);
        machine.launch(name, [x, self.images.len() as u32, 1], abi::RESIZE_THREADS, &params)
    }

    fn most(&self, of: impl Fn(&Image) -> u32) -> u32 {
        self.images.iter().map(of).max().unwrap_or(0)
    }
}

/// Addresses as parameters.
pub fn params(addresses: &[u64]) -> Vec<u8> {
    bytemuck::cast_slice(addresses).to_vec()
}

fn axis(axis: &plan::Axis, reversed: bool, tables: usize) -> Axis {
    let denominator = axis.scale.denominator();
    // The formulas of plan::Axis, written out a second time on purpose.
    let scale = f64::from(axis.box_len) / axis.resized_len as f64 / f64::from(denominator);
    let support = scale.max(1.0);
    let within = axis.box_start % denominator;
    Axis {
        scale,
        offset: f64::from(within) / f64::from(denominator),
        support,
        per_support: 1.0 / support,
        len: f64::from((within + axis.box_len).div_ceil(denominator)),
        window_start: axis.window_start,
        output_len: axis.output_len,
        origin: (axis.source_range().0 - axis.box_start / denominator) as u16,
        reversed: reversed.into(),
        tables: tables as u32,
        taps_max: (2.0 * support).ceil() as u32 + 1,
    }
}

/// Outputs whose taps span no more columns than the kernel holds.
fn tile(axis: &plan::Axis) -> u32 {
    let scale = f64::from(axis.box_len) / axis.resized_len as f64;
    let outputs = (f64::from(abi::TILE_COLUMNS) - 2.0 * scale.max(1.0) - 2.0) / scale;
    (outputs as u32).clamp(1, axis.output_len)
}
