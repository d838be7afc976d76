"""The sources `mqtt` and `sparkplug`, and the sink `mqtt`: messages of a broker, with aiomqtt."""
