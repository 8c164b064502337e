"""SharedFrames: memory across processes, of which nothing stays behind."""

import os
import pickle

import pytest

from vlmrm_wrap.shared_frames import SharedFrames


def test_forked_copies_keep_their_frames_to_themselves():
    shared = SharedFrames(1, (2, 2, 3), across_processes=False)
    child = os.fork()
    if child == 0:
        shared.steps[0] = 5
        os._exit(0)
    os.waitpid(child, 0)
    assert shared.steps[0] == 0


def test_writes_cross_by_path_and_the_name_goes():
    shared = SharedFrames(2, (4, 5, 3), across_processes=True)
    other = pickle.loads(pickle.dumps(shared))
    other.frames[1] = 7
    other.steps[1] = 3
    shared.unlink()
    shared.unlink()
    assert (shared.frames[1] == 7).all()
    assert (shared.frames[0] == 0).all()
    assert shared.steps.tolist() == [0, 3]
    with pytest.raises(TypeError, match="can't be sent"):
        pickle.dumps(shared)


def test_without_room_in_dev_shm_the_temp_folder_serves(monkeypatch, tmp_path):
    monkeypatch.setattr("os.statvfs", lambda path: type("Full", (), {"f_bavail": 0, "f_frsize": 4096}))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    shared = SharedFrames(1, (2, 2, 3), across_processes=True)
    assert len(list(tmp_path.iterdir())) == 1
    shared.unlink()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_error_and_leaves_no_file(monkeypatch, tmp_path):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    monkeypatch.setattr("vlmrm_wrap.shared_frames._roomy_folder", lambda size: str(tmp_path))
    with pytest.raises(OSError, match="No space"):
        SharedFrames(1, (2, 2, 3), across_processes=True)
    assert list(tmp_path.iterdir()) == []
