"""Drives a MONAI Label server with MONAI Label's own client; run by the Python that has it.

python label_client.py URL FOLDER: FOLDER holds day1.nii.gz and atlas_label.nii.gz. Prints what came back, as JSON.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from monailabel.client import MONAILabelClient


def main(url: str, folder: Path) -> dict[str, Any]:
    """Do what a viewer does, one call after the other."""
    answers = folder / "answers"
    answers.mkdir()
    client = MONAILabelClient(url, tmpdir=str(answers))
    found: dict[str, Any] = {"info": client.info()}

    def keep(name: str, answer: tuple[str, dict[str, Any]]) -> None:
        file, params = answer
        target = folder / f"{name}{''.join(Path(file).suffixes)}"
        shutil.move(file, target)
        found[name] = {"file": str(target), "params": params}

    atlas = {"moving_image": "atlas"}
    keep("propagate", client.infer("ran_propagate", "day1", dict(atlas)))
    keep(
        "slicer", client.infer("ran_propagate", "day1", {**atlas, "result_extension": ".nrrd", "result_dtype": "uint8"})
    )
    keep("image", client.infer("ran_image", "day1", dict(atlas)))
    keep("transform", client.infer("ran_transform", "day1", {**atlas, "format": "itk_nifti"}))
    day1, label = str(folder / "day1.nii.gz"), str(folder / "atlas_label.nii.gz")
    keep("uploads", client.infer("ran_image", "", {}, label_in=str(folder / "atlas.nii.gz"), file=day1))
    keep("uploaded_label", client.infer("ran_propagate", "day1", dict(atlas), label_in=label))
    session = client.create_session(day1)["session_id"]
    keep("session", client.infer("ran_propagate", "", dict(atlas), session_id=session))
    client.remove_session(session)
    found["upload"] = client.upload_image(day1, "day9")
    keep("uploaded", client.infer("ran_propagate", "day9", {**atlas, "save_label": True, "save_transform": True}))
    found["label"] = client.save_label("day2", label, params={"label_info": [{"name": "liver", "idx": 3}]})
    found["datastore"] = client.datastore()
    found["info_after"] = client.info()
    shutil.move(client.download_label("day9", "transform"), folder / "kept_transform.nii.gz")
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
