"""What is measured: pure functions of arrays or texts. They know no engine, task, file or model."""
