//! Which sequence's tokens a device has counted in which table.
//!
//! The device counts what it chooses, so that a table stays true while its sequence goes on. A sequence that comes back
//! after others, or for the first time, gets a table that must be counted anew.

use super::sequence::SequenceId;

/// The tables of a device.
#[derive(Debug)]
pub struct PenaltyTables {
    /// Of each table: whose tokens, and how many of them, are counted in it.
    counted: Vec<Option<(SequenceId, usize)>>,
}

/// A sequence's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which one.
    pub table: u32,
    /// Whether all of the sequence's tokens are counted in it.
    pub is_current: bool,
}

impl PenaltyTables {
    /// None of `count` tables is anybody's.
    pub fn new(count: usize) -> Self {
        Self {
            counted: vec![None; count],
        }
    }

    /// A table for each sequence of a step, which has so many tokens and gets one more by it.
    ///
    /// # Panics
    /// If there are more sequences than tables.
    pub fn places(&mut self, sequences: impl Iterator<Item = (SequenceId, usize)>) -> Vec<Place> {
        let wanted: Vec<_> = sequences.collect();
        let mut found: Vec<Option<usize>> = wanted
            .iter()
            .map(|(id, _)| {
                let is_theirs =
                    |it: &Option<(SequenceId, usize)>| it.is_some_and(|(of, _)| of == *id);
                self.counted.iter().position(is_theirs)
            })
            .collect();
        let mut taken = vec![false; self.counted.len()];
        for table in found.iter().flatten() {
            taken[*table] = true;
        }
        let mut places = Vec::with_capacity(wanted.len());
        for ((id, len), found) in wanted.into_iter().zip(&mut found) {
            let is_current = found.is_some_and(|table| self.counted[table] == Some((id, len)));
            let table = found.unwrap_or_else(|| self.free(&taken));
            taken[table] = true;
            self.counted[table] = Some((id, len + 1));
            places.push(Place {
                table: table as u32,
                is_current,
            });
        }
        places
    }

    /// A table that nobody has, or one whose sequence is not in this step.
    fn free(&self, taken: &[bool]) -> usize {
        let nobodys = self.counted.iter().position(Option::is_none);
        nobodys
            .or_else(|| taken.iter().position(|taken| !taken))
            .expect("a step has no more sequences than there are tables. This is a bug.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(request: u64) -> SequenceId {
        SequenceId { request, index: 0 }
    }

    fn places(tables: &mut PenaltyTables, sequences: &[(u64, usize)]) -> Vec<(u32, bool)> {
        let sequences = sequences.iter().map(|&(request, len)| (id(request), len));
        let places = tables.places(sequences);
        places
            .into_iter()
            .map(|place| (place.table, place.is_current))
            .collect()
    }

    #[test]
    fn a_table_stays_true_while_its_sequence_goes_on() {
        let mut tables = PenaltyTables::new(2);
        assert_eq!(
            places(&mut tables, &[(1, 5), (2, 9)]),
            [(0, false), (1, false)]
        );
        assert_eq!(
            places(&mut tables, &[(2, 10), (1, 6)]),
            [(1, true), (0, true)]
        );
        // One that was preempted by recomputation comes back as it was.
        assert_eq!(places(&mut tables, &[(1, 7)]), [(0, true)]);
        assert_eq!(places(&mut tables, &[(2, 11)]), [(1, true)]);
    }

    #[test]
    fn others_take_a_table_that_is_not_in_the_step_and_its_owner_is_counted_anew() {
        let mut tables = PenaltyTables::new(2);
        places(&mut tables, &[(1, 5), (2, 9)]);
        assert_eq!(
            places(&mut tables, &[(3, 4), (1, 6)]),
            [(1, false), (0, true)]
        );
        assert_eq!(places(&mut tables, &[(2, 10)]), [(0, false)]);
        // A step that failed leaves a table that has counted too many.
        assert_eq!(places(&mut tables, &[(2, 10)]), [(0, false)]);
    }
}
