"""A trusted run that happens elsewhere; those on this machine are test_cli_run's and test_work's."""

from fake_project import FakeProject

from lab.experiment import Experiment, Order


class Elsewhere:
    """An engine whose command leaves nothing."""

    def run(self, job, look):
        """Take note of the job."""
        self.job = job
        job.folder.mkdir(parents=True)
        return 0


def test_an_engine_is_told_which_commons_the_run_is_for(tmp_path):
    project, commons = FakeProject(tmp_path / "project"), tmp_path / "another commons"
    commons.mkdir()
    engine = Elsewhere()
    order = Order(project.git("rev-parse", "HEAD").strip(), {}, "an idea", "s", "me")
    card = Experiment(project.folder, commons, order, engine=engine).perform()
    assert engine.job.told["KNOWLEDGE_DIR"] == str(commons)
    assert (card["status"], card["hypothesis"]) == ("crash", "an idea")
