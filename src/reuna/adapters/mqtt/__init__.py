"""The sources `mqtt` and `sparkplug`: messages of a broker, with aiomqtt."""
