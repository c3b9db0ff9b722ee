"""What the README and the example say is what happens."""

from __future__ import annotations

import re
import subprocess
import sys
import unittest

from support import PATIENCE_SECONDS, ROOT, NodeCase, assert_printed


class Examples(NodeCase):
    def run_python(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env={"PYTHONPATH": ":".join(sys.path), "PYTHONIOENCODING": "utf-8"},
            timeout=PATIENCE_SECONDS,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def test_the_first_steps_print_what_their_comments_say(self) -> None:
        path = ROOT / "examples" / "first_steps.py"
        printed = self.run_python(str(path), str(self.node.port))
        shape = "[(key, score), …], highest first"
        pairs = "[('doc1_embedding', 1.0), ('doc2_embedding', 0.98…)]"
        assert_printed(self, path.read_text(encoding="utf-8").replace(shape, pairs), printed)

    def test_every_block_of_the_readme_prints_what_its_comments_say(self) -> None:
        text = (ROOT / "README.md").read_text(encoding="utf-8")
        blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        self.assertGreaterEqual(len(blocks), 4)
        for number, block in enumerate(blocks):
            with self.subTest(block=number):
                self.setUp()
                printed = self.run_python("-c", block.replace("9000", str(self.node.port)))
                assert_printed(self, block, printed)

    def test_the_readme_names_every_method_and_error(self) -> None:
        from datastore.errors import ERRORS
        from datastore.operations import Operations, PagedOperations

        text = (ROOT / "README.md").read_text(encoding="utf-8")
        methods = [name for name in {**vars(Operations), **vars(PagedOperations)} if name[0] != "_"]
        for name in [*methods, *[kind.__name__ for kind in ERRORS.values()]]:
            self.assertRegex(text, rf"`{name}\b")


if __name__ == "__main__":
    unittest.main()
