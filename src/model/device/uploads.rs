//! Weights on their way to a device: through page-locked places that take turns, so that what comes next is made ready while
//! the last is copied.

use crate::ops::{Address, Device, OpError, Staged};

/// Copies to a device that go on while the host does something else.
///
/// From memory that is not page-locked a driver copies by way of its own, and the host waits for it.
#[derive(Debug)]
pub(super) struct Uploads<D: Device> {
    place_bytes: usize,
    places: Places<D>,
}

#[derive(Debug)]
enum Places<D: Device> {
    /// Nothing was copied yet, or nothing will be.
    None,
    /// The first is written next.
    InTurn([D::Staged; 2]),
    /// The host has no page-locked memory to give.
    Refused,
}

impl<D: Device> Uploads<D> {
    /// A place: both together hold the larger side of an expert of Mixtral 8x7B in four bits, 60 MB.
    pub const PLACE_BYTES: usize = 32 << 20;

    pub fn new(place_bytes: usize) -> Self {
        Self {
            place_bytes,
            places: Places::None,
        }
    }

    /// Copies `bytes` to the device when their turn comes. They may be changed once this returns.
    ///
    /// # Errors
    /// [`OpError::Driver`] if the device failed, here or in a copy before.
    pub fn upload(&mut self, device: &D, bytes: &[u8], to: Address) -> Result<(), OpError> {
        if matches!(self.places, Places::None) {
            self.places = Self::places(device, self.place_bytes);
        }
        let Places::InTurn(places) = &mut self.places else {
            return device.upload(bytes, to);
        };
        for (number, piece) in bytes.chunks(self.place_bytes).enumerate() {
            let place = &mut places[0];
            place.settled()?[..piece.len()].copy_from_slice(piece);
            device.send(place, piece.len(), to.offset(number * self.place_bytes))?;
            places.swap(0, 1);
        }
        Ok(())
    }

    /// Waits for the copies and gives the places back.
    ///
    /// # Errors
    /// [`OpError::Driver`] if a copy failed.
    pub fn finish(&mut self) -> Result<(), OpError> {
        if let Places::InTurn(mut places) = std::mem::replace(&mut self.places, Places::None) {
            for place in &mut places {
                place.settled()?;
            }
        }
        Ok(())
    }

    fn places(device: &D, bytes: usize) -> Places<D> {
        let both = || Ok([device.stage(bytes)?, device.stage(bytes)?]);
        both().map_or_else(
            |error: OpError| {
                tracing::warn!(
                    %error,
                    "there is no page-locked memory for weights; loading them takes longer"
                );
                Places::Refused
            },
            Places::InTurn,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Memory;
    use crate::ops::emulated::Emulated;

    const PLACE: usize = 100;

    /// Uploads pieces of all sizes behind each other, each of which is changed at once, and reads them back.
    fn check(device: &Emulated) {
        let sizes = [0, 1, 99, 100, 101, 350, 7, 200, 3];
        let all: usize = sizes.iter().sum();
        let memory = device.allocate(all).unwrap();
        let mut uploads = Uploads::new(PLACE);
        let (mut wanted, mut at) = (Vec::new(), 0);
        for (number, size) in sizes.into_iter().enumerate() {
            let mut bytes = vec![number as u8 + 1; size];
            let to = memory.address().offset(at);
            uploads.upload(device, &bytes, to).unwrap();
            wanted.extend_from_slice(&bytes);
            bytes.fill(0xff);
            at += size;
        }
        uploads.finish().unwrap();
        let mut given = vec![0; all];
        device.download(memory.address(), &mut given).unwrap();
        assert_eq!(given, wanted);
    }

    #[test]
    fn pieces_of_any_size_arrive_as_they_were() {
        for device in [Emulated::default(), Emulated::late()] {
            check(&device);
            // The memory itself, and two places.
            assert_eq!(device.allocations(), 3);
        }
    }

    #[test]
    fn without_page_locked_memory_they_arrive_too() {
        let device = Emulated::refusing_to_stage();
        check(&device);
        assert_eq!(device.allocations(), 1);
    }

    #[test]
    fn a_copy_that_fails_is_told_at_the_end() {
        let device = Emulated::late();
        let memory = device.allocate(64).unwrap();
        let mut uploads = Uploads::new(PLACE);
        let beyond = memory.address().offset(4096);
        uploads.upload(&device, &[1; 32], beyond).unwrap();
        let said = uploads.finish().unwrap_err().to_string();
        assert!(said.contains("not within a buffer"), "{said}");
    }
}
