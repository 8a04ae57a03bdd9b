//! Extended XYZ, through our own writer: nothing is rounded.

use super::{Record, Sink};
use crate::error::{Error, reason};
use crate::system::System;
use crate::system::extxyz::{Column, Frame, Writer};
use std::fs::File;
use std::io::{Seek, Write};

pub(super) struct ExtendedXyz {
    file: File,
    /// Elements and masses.
    system: System,
}

impl ExtendedXyz {
    /// Writes where the file stands.
    pub fn new(file: File, system: System) -> Self {
        ExtendedXyz { file, system }
    }
}

impl Sink for ExtendedXyz {
    fn write(&mut self, record: &Record) -> Result<(), String> {
        self.system.positions.clone_from(&record.positions);
        self.system.velocities.clone_from(&record.velocities);
        self.system.cell = record.cell.clone();
        let mut frame = Frame::new(self.system.clone());
        frame.set_info("step", record.step as i64);
        if let Some(time) = record.time {
            frame.set_info("time", time);
        }
        if let Some(energy) = record.energy {
            frame.set_info("energy", energy);
        }
        if let Some(forces) = &record.forces {
            frame.set_column(Column::vectors("forces", forces));
        }
        let mut writer = Writer::new(Vec::new(), "the frame");
        let text = writer.write(&frame).and_then(|()| writer.finish()).map_err(|error: Error| error.to_string())?;
        self.file.write_all(&text).map_err(|error| format!("the file cannot be written: {}", reason(&error)))
    }

    fn commit(&mut self) -> Result<u64, String> {
        let length = self.file.sync_all().and_then(|()| self.file.stream_position());
        length.map_err(|error| format!("cannot be written: {}", reason(&error)))
    }

    fn finish(&mut self) -> Result<(), String> {
        self.commit().map(drop)
    }
}
