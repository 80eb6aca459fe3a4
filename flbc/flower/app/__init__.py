"""The bundled Flower app: logistic regression on the records of four hospitals (see ``strategies/``)."""
