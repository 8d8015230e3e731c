"""Operators for MONAI Deploy; needs its App SDK."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from monai.data import MetaTensor
from monai.deploy.conditions import CountCondition
from monai.deploy.core import Application, ConditionType, Fragment, Image, Operator, OperatorSpec, init_app_context
from monai.deploy.core.domain.dicom_series_selection import SelectedSeries, StudySelectedSeries
from monai.deploy.exceptions import ItemNotExistsError

from monai_regplugins.apps.deploy.inputs import (
    ROLES,
    PickedSeries,
    find_pair,
    picked_pair,
)
from monai_regplugins.apps.deploy.segmentation import (
    check_segmentation,
    read_segmentation,
    write_segmentation,
)
from monai_regplugins.apps.deploy.settings import AppSettings, exit_status, read_settings
from monai_regplugins.apps.deploy.sources import check_room, header_of, source_of
from monai_regplugins.apps.deploy.tags import OBJECTS, comment_of, describe_file
from monai_regplugins.bundle import start
from monai_regplugins.checks import InputError
from monai_regplugins.io.formats import (
    FORMATS,
    INSTEAD_OF_DICOM,
    FieldPair,
    output_name,
)
from monai_regplugins.readers.dicom_files import is_dicom
from monai_regplugins.registration import load_bundle
from monai_regplugins.renamed import current_names
from monai_regplugins.result import RegistrationResult
from monai_regplugins.verdict.judge import LEVELS

__all__ = [
    "PairApplication",
    "PairFolderOperator",
    "PairSeriesOperator",
    "RegistrationOperator",
    "SegmentationWriterOperator",
]


class RegistrationOperator(Operator):
    """Register two scans with a bundle of this package.

    The scans are read from their files, not taken from ``DICOMSeriesToVolumeOperator``, which exchanges the spacing of
    rows and columns.

    Named inputs:
        fixed: path of the image that stays: a file, or the folder or a file of a DICOM series.
        moving: path of the image that is brought onto it.
        moving_label: optional, path of the label map or DICOM segmentation of the moving image.

    Named outputs:
        transform: path of the field's file, in the pair's folder with all results.
        verdict: text, ``PASS``, or the reasons of another verdict, see
            :class:`~monai_regplugins.verdict.judge.Verdict`; it is in the log, in ``metrics.json``, in
            ``provenance.json`` and in the DICOM objects, too.
        label: only with ``moving_label``: :class:`~monai.deploy.core.Image` of the label on the fixed grid, (slices,
            rows, columns), whose metadata hold ``affine`` (of (columns, rows, slices) to RAS mm), the paths ``fixed``
            and ``moving_label``, ``folder``, that of the pair, and ``verdict``.

    Args:
        fragment: the application.
        bundle: folder of the bundle.
        output_folder: where the pair's folder goes.
        format: of the field's file, see :data:`~monai_regplugins.io.FORMATS`; by default the bundle's.
        pair_id: name of the pair's folder, by default made of the files' names.
        overrides: other values for keys of the bundle's ``inference.json``; ``formats`` among them replaces ``format``.
        tags: of a DICOM registration, value by keyword, checked by
            :func:`~monai_regplugins.apps.deploy.tags.check_tags`.
        **kwargs: of any operator, such as ``name``.

    Raises:
        InputError: When the bundle is not fit for use; while computing, when something about the pair is wrong.
    """

    def __init__(
        self,
        fragment: Fragment,
        *args: Any,
        bundle: str | Path,
        output_folder: str | Path,
        format: str = "",
        pair_id: str = "",
        overrides: dict[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.level = "PASS"  # the worst verdict so far
        self._tags = OBJECTS["registration"] if tags is None else tags
        named = current_names({"format": format, **kwargs})
        self._output_folder, self._format, self._pair_id = Path(output_folder), named.pop("format"), pair_id
        self._register = load_bundle(bundle, **{"formats": self._format, **current_names(overrides or {})})
        super().__init__(fragment, *args, **named)

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the ports."""
        spec.input("fixed")
        spec.input("moving")
        spec.input("moving_label").condition(ConditionType.NONE)
        spec.output("label").condition(ConditionType.NONE)
        spec.output("transform").condition(ConditionType.NONE)
        spec.output("verdict").condition(ConditionType.NONE)

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Register the pair and write its folder.

        Raises:
            InputError: When something about the pair is wrong.
        """
        fixed, moving, label = (_path(op_input.receive(port), port) for port in ROLES)
        if fixed is None or moving is None:
            raise InputError("the operator needs the paths of both images; connect its ports fixed and moving.")
        start = time.perf_counter()
        check_room(self._output_folder, fixed)
        given = read_segmentation(label, moving) if label and label.is_file() and is_dicom(label) else label
        result = self._register(
            fixed, moving, moving_label=given, pair_id=self._pair_id, output_dir=self._output_folder
        )
        self.level = max(self.level, result.verdict.level, key=LEVELS.index)
        sources = {role: source_of(path) for role, path in zip(ROLES, (fixed, moving, label), strict=True) if path}
        seconds = {"seconds_total": round(time.perf_counter() - start, 3)}
        record = {"sources": sources, **result.verdict.as_json(), **seconds}
        folder = result.save(self._output_folder, record, [self._describe])
        op_output.emit(str(_field_file(folder, FieldPair(fixed, moving), self._format)), "transform")
        op_output.emit(str(result.verdict), "verdict")
        if result.warped_label is not None:
            about = {"fixed": fixed, "moving_label": label, "folder": folder, "verdict": str(result.verdict)}
            op_output.emit(_label_image(result.warped_label, about), "label")

    def _describe(self, result: RegistrationResult, folder: Path) -> None:
        """Let a DICOM registration say what it is, and what is to be thought of it."""
        if (file := folder / FORMATS["dicom"].file_name).is_file():
            fixed = header_of(Path(result.given["fixed"]))
            describe_file(file, self._tags, comment_of(str(result.verdict)), fixed)


class PairFolderOperator(Operator):
    """Find the files of a pair in a folder, see :func:`~monai_regplugins.apps.deploy.inputs.find_pair`.

    Named outputs:
        fixed, moving, moving_label: paths, the last one only if there is such a file.

    Args:
        fragment: the application.
        input_folder: the folder.
        **kwargs: of any operator, such as ``name``.
    """

    def __init__(self, fragment: Fragment, *args: Any, input_folder: str | Path, **kwargs: Any) -> None:
        self._input_folder = Path(input_folder)
        super().__init__(fragment, CountCondition(fragment, 1), *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the ports."""
        _declare_pair(spec)

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Emit the paths.

        Raises:
            InputError: When an image is missing, or there are two of a name.
        """
        _emit_pair(op_output, find_pair(self._input_folder))


class PairSeriesOperator(Operator):
    """Take a pair from the series that a ``DICOMSeriesSelectorOperator(all_matched=True)`` has selected.

    Its selections are called ``fixed``, ``moving`` and, for the DICOM segmentation of the latter, ``moving_label``; see
    :func:`~monai_regplugins.apps.deploy.inputs.picked_pair`. The series may be of different studies.

    Named input:
        study_selected_series_list: of the selector.

    Named outputs:
        fixed, moving, moving_label: path of a file of the series, the last one only if one was selected.
    """

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the ports."""
        spec.input("study_selected_series_list")
        _declare_pair(spec)

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Emit the paths.

        Raises:
            InputError: When the rules have not picked one series for each image, or the labels could not be written as
                DICOM segmentation of the fixed series.
        """
        studies: Iterable[StudySelectedSeries] = op_input.receive("study_selected_series_list")
        pair = picked_pair(_picked(one) for study in studies for one in study.selected_series)
        if "moving_label" in pair:
            check_segmentation(pair["fixed"], pair["moving_label"])
        _emit_pair(op_output, pair)


class SegmentationWriterOperator(Operator):
    """Write the label of a :class:`RegistrationOperator` as DICOM segmentation of the fixed series.

    The file is ``segmentation.dcm`` in the pair's folder.

    Named input:
        label: of the registration.

    Args:
        fragment: the application.
        tags: of the segmentation, value by keyword, checked by
            :func:`~monai_regplugins.apps.deploy.tags.check_tags`.
        **kwargs: of any operator, such as ``name``.
    """

    def __init__(self, fragment: Fragment, *args: Any, tags: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        self._tags = tags
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the port."""
        spec.input("label")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Write the file.

        Raises:
            InputError: When there is no label, or the system refuses to write.
        """
        label = op_input.receive("label")
        about = label.metadata()
        path = about["folder"] / "segmentation.dcm"
        content = label.asnumpy().T, about["affine"], about["fixed"]
        write_segmentation(*content, path, about["moving_label"], self._tags, comment_of(about["verdict"]))


class PairApplication(Application):
    """Base of the applications that register one pair.

    Attributes:
        register: the operator that does it, once the graph is made.
    """

    register: RegistrationOperator

    @cached_property
    def settings(self) -> AppSettings:
        """Its settings, see :func:`~monai_regplugins.apps.deploy.settings.read_settings`."""
        return read_settings(init_app_context(self.argv))

    @classmethod
    def main(cls) -> int:
        """Run it as a program; return the exit status, see :func:`~monai_regplugins.apps.deploy.settings.exit_status`.

        Raises:
            InputError: When something about settings, bundle or pair is wrong; the status is 1 then.
        """
        start()
        app = cls()
        try:
            app.run()
        except ItemNotExistsError as error:  # of the SDK's loader
            raise InputError(f"'{app.settings.input_folder}' holds no DICOM series; give the folder of two.") from error
        return exit_status(app.register.level, app.settings.fail_on)


def _label_image(label: MetaTensor, about: Mapping[str, Any]) -> Image:
    """A label map as the SDK has images: (slices, rows, columns), with its affine in the metadata."""
    return Image(label.as_tensor().numpy()[0].T, {"affine": label.affine.numpy(), **about})


def _field_file(folder: Path, pair: FieldPair, format: str) -> Path:
    """The file of the field in the wanted format, or in the first one that was written."""
    names = [*(output_name(one, pair) for one in (format, *FORMATS) if one), INSTEAD_OF_DICOM]
    return next(path for path in map(folder.joinpath, names) if path.is_file())


def _declare_pair(spec: OperatorSpec) -> None:
    """Declare the outputs of an operator that finds a pair."""
    for port in ROLES:
        spec.output(port).condition(ConditionType.NONE)


def _emit_pair(op_output: Any, pair: dict[str, Path]) -> None:
    """Emit what was found, as text: other objects may be taken for arrays on their way."""
    for port, path in pair.items():
        op_output.emit(str(path), port)


def _path(value: Any, port: str) -> Path | None:
    """What came in at a port of paths."""
    if value is None or isinstance(value, str | Path):
        return None if value is None else Path(value)
    raise InputError(
        f"port {port} got a {type(value).__name__}, expected the path of a file or of a DICOM series' folder; connect "
        "an operator that emits it."
    )


def _picked(selected: SelectedSeries) -> PickedSeries:
    """What is needed of a series in the SDK's terms."""
    series = selected.series
    files = [Path(instance.get_native_sop_instance().filename) for instance in series.get_sop_instances()]
    return PickedSeries(selected.selection_name, str(series.SeriesInstanceUID), str(series.SeriesDescription), files)
