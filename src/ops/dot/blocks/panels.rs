//! Products of many rows with quantised weights: a part of four rows of weights at a time is decoded into a panel that all
//! rows share, so that each weight is decoded once.
//!
//! The first rows are multiplied while the panel is filled, which hides most of the decoding, the others with what it
//! holds. The lanes of each sum wait in memory for the next part.

use std::cell::Cell;
use std::ops::Range;

use super::LANES;

thread_local! {
    /// A panel and lanes of sums, made by its thread's first product that needs them.
    pub(super) static SCRATCH: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Sixteen lanes, in a line of cache of their own: a load that crosses from one line to the next takes twice the time.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Line(pub [f32; LANES]);

/// Rows of weights that are decoded at once.
pub(super) const PANEL_ROWS: usize = 4;
/// Columns that are decoded at once, whole blocks of any format: 16 KiB with the rows, half of a first-level cache. Rows
/// alternate every 16 columns, because whole rows would lie 4 KiB apart, and share the same few places of that cache.
pub(super) const PANEL_COLUMNS: usize = 1024;
/// Lines of a panel, `[PANEL_COLUMNS / LANES, PANEL_ROWS]`.
pub(super) const PANEL: usize = PANEL_ROWS * PANEL_COLUMNS / LANES;
/// Rows of activations that are multiplied with one panel after the other: the same columns of them, 256 KiB, wait in the
/// second-level cache meanwhile.
pub(super) const ROWS: usize = 64;
/// Panels that are multiplied with the same columns of those rows.
pub(super) const PANELS: usize = 8;
/// Lines of sums, `[PANELS, ROWS, PANEL_ROWS]`: 128 KiB.
pub(super) const SUMS: usize = PANELS * ROWS * PANEL_ROWS;

/// `range`, cut into as few parts as possible of at most `most`, as even as possible.
pub(super) fn shares(range: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
    let parts = range.len().div_ceil(most);
    (0..parts).map(move |part| {
        let at = |part| range.start + range.len() * part / parts;
        at(part)..at(part + 1)
    })
}

/// The loops over panels, for one instruction set and one format: `over_panels`. Expects what `block_tiles!` has around it
/// and in it, and of the instruction set the rows of a tile (`FIRST_ROWS` while a panel is filled, then `NEXT_ROWS`; at
/// most four) and the operations of one of its `register`s.
macro_rules! panels {
    ($($feature:meta)?) => {
        /// See [`Weight::columns`]: decodes parts of four rows of weights into panels.
        $(#[$feature])?
        unsafe fn over_panels(product: &Product<'_, Block>, y: Output, columns: Range<usize>) {
            let mut scratch = SCRATCH.take();
            scratch.resize(PANEL + SUMS, Line([0.0; LANES]));
            let (panel, lanes) = scratch.split_at_mut(PANEL);
            for j in columns.clone().step_by(PANELS * PANEL_ROWS) {
                let columns = j..columns.end.min(j + PANELS * PANEL_ROWS);
                for rows in shares(0..product.m, ROWS) {
                    // SAFETY: the columns are within `columns`, which the caller vouches for.
                    unsafe { outputs(product, y, rows, columns.clone(), panel, lanes) };
                }
            }
            SCRATCH.set(scratch);
        }

        /// Outputs of at most [`ROWS`] rows and [`PANELS`] times [`PANEL_ROWS`] columns.
        $(#[$feature])?
        unsafe fn outputs(
            product: &Product<'_, Block>,
            y: Output,
            rows: Range<usize>,
            columns: Range<usize>,
            panel: &mut [Line],
            lanes: &mut [Line],
        ) {
            let panels = columns.len().div_ceil(PANEL_ROWS);
            lanes[..panels * rows.len() * PANEL_ROWS].fill(Line([0.0; LANES]));
            for first in (0..product.k).step_by(PANEL_COLUMNS) {
                let part = first..product.k.min(first + PANEL_COLUMNS);
                let lanes = lanes.chunks_exact_mut(rows.len() * PANEL_ROWS);
                for (j, lanes) in columns.clone().step_by(PANEL_ROWS).zip(lanes) {
                    // Past the end, the last row of weights again, whose sums are not written.
                    let w = std::array::from_fn(|row| columns.end.min(j + row + 1) - 1);
                    let first = rows.start..rows.end.min(rows.start + FIRST_ROWS);
                    let (here, mut lanes) = lanes.split_at_mut(first.len() * PANEL_ROWS);
                    // SAFETY: the rows are below `m`, and the columns below `k`.
                    unsafe {
                        match first.len() {
                            1 => begin::<1>(product, first.start, w, part.clone(), panel, here),
                            2 => begin::<2>(product, first.start, w, part.clone(), panel, here),
                            3 => begin::<3>(product, first.start, w, part.clone(), panel, here),
                            _ => begin::<4>(product, first.start, w, part.clone(), panel, here),
                        }
                    }
                    for rows in shares(first.end..rows.end, NEXT_ROWS) {
                        let (here, later) = lanes.split_at_mut(rows.len() * PANEL_ROWS);
                        // SAFETY: as above.
                        unsafe {
                            match rows.len() {
                                1 => add::<1>(product, rows.start, part.clone(), panel, here),
                                2 => add::<2>(product, rows.start, part.clone(), panel, here),
                                3 => add::<3>(product, rows.start, part.clone(), panel, here),
                                _ => add::<4>(product, rows.start, part.clone(), panel, here),
                            }
                        }
                        lanes = later;
                    }
                }
            }
            let lanes = lanes.chunks_exact(rows.len() * PANEL_ROWS);
            for (j, lanes) in columns.clone().step_by(PANEL_ROWS).zip(lanes) {
                for (i, lanes) in rows.clone().zip(lanes.chunks_exact(PANEL_ROWS)) {
                    for (column, lanes) in (j..columns.end).zip(lanes) {
                        // SAFETY: the caller vouches for the output; a line has 16 elements.
                        unsafe {
                            let out = y.0.add(product.y_rows.row(i) * product.y_stride + column);
                            *out = sum(load_f32(lanes.0.as_ptr()));
                        }
                    }
                }
            }
        }

        /// Adds the products of `part` of rows `w` of the weights and rows `i..i + MR` to their lanes, and leaves the
        /// weights in the panel.
        #[inline]
        $(#[$feature])?
        unsafe fn begin<const MR: usize>(
            product: &Product<'_, Block>,
            i: usize,
            w: [usize; PANEL_ROWS],
            part: Range<usize>,
            panel: &mut [Line],
            lanes: &mut [Line],
        ) {
            let lanes = &mut lanes[..MR * PANEL_ROWS];
            let mut acc = [[zero(); PANEL_ROWS]; MR];
            // SAFETY: the caller's promise, passed on. A line has 16 elements.
            unsafe {
                for r in 0..MR {
                    for c in 0..PANEL_ROWS {
                        acc[r][c] = load_f32(lanes[r * PANEL_ROWS + c].0.as_ptr());
                    }
                }
                decoded::<MR, PANEL_ROWS, true>(product, i, w, part, panel, &mut acc);
                for r in 0..MR {
                    for c in 0..PANEL_ROWS {
                        store(acc[r][c], lanes[r * PANEL_ROWS + c].0.as_mut_ptr());
                    }
                }
            }
        }

        /// The same, with the weights of the panel, and as many lanes at a time as a register has.
        #[inline]
        $(#[$feature])?
        unsafe fn add<const MR: usize>(
            product: &Product<'_, Block>,
            i: usize,
            part: Range<usize>,
            panel: &[Line],
            lanes: &mut [Line],
        ) {
            let lanes = &mut lanes[..MR * PANEL_ROWS];
            let panel = &panel.as_chunks::<PANEL_ROWS>().0[..part.len() / LANES];
            for lane in (0..LANES).step_by(register::WIDTH) {
                let mut acc = [[register::zero(); PANEL_ROWS]; MR];
                // SAFETY: `multiply_each` has asserted that each named row holds `k` elements within its slice; `part`
                // is below that. A line has 16 elements.
                unsafe {
                    let x = starts::<MR>(product, i, part.start + lane);
                    for r in 0..MR {
                        for c in 0..PANEL_ROWS {
                            let line = &lanes[r * PANEL_ROWS + c].0;
                            acc[r][c] = register::load_f32(line.as_ptr().add(lane));
                        }
                    }
                    for (at, weights) in panel.iter().enumerate() {
                        let mut wide = [register::zero(); PANEL_ROWS];
                        for c in 0..PANEL_ROWS {
                            wide[c] = register::load_f32(weights[c].0.as_ptr().add(lane));
                        }
                        for r in 0..MR {
                            let row = register::load_f32(x[r].add(at * LANES));
                            for c in 0..PANEL_ROWS {
                                acc[r][c] = register::fma(row, wide[c], acc[r][c]);
                            }
                        }
                    }
                    for r in 0..MR {
                        for c in 0..PANEL_ROWS {
                            let line = &mut lanes[r * PANEL_ROWS + c].0;
                            register::store(acc[r][c], line.as_mut_ptr().add(lane));
                        }
                    }
                }
            }
        }
    };
}
