namespace Vmm.Vhost.User.Backend;

/// <summary>A request was understood and cannot be done. A front-end that asked for a reply is told so; if it did not, the connection is
/// closed, because it would go on as if it had been done.</summary>
/// <param name="message">Why.</param>
/// <param name="isHarmless">Nothing depends on the request: without a reply, one goes on.</param>
/// <param name="isDevices">The device does not start a ring, though all that the front-end has to say about it was said.</param>
internal sealed class RefusedException(string message, bool isHarmless = false, bool isDevices = false) : Exception(message)
{
    public bool IsHarmless { get; } = isHarmless;

    public bool IsDevices { get; } = isDevices;
}

/// <summary>A message that the protocol does not allow: the connection is closed.</summary>
internal sealed class ViolationException(string message) : Exception(message);
